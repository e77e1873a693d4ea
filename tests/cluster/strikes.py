"""Kills in a running job what a moment says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psutil

from tests.cluster.harness import ACTOR, POLL_S, READER, TRAIN_RANK, Job, kill, processes
from tests.cluster.moments import Moment, Victim
from tests.cluster.nodes import Nodes

PROGRESS_POLL_S = 0.02
NAMES = {Victim.ACTOR: ACTOR, Victim.READER: READER, Victim.RANK: TRAIN_RANK}

T = TypeVar("T")


def strike(
    moment: Moment, job: Job, progress: Callable[[], int], nodes: Nodes | None = None
) -> str | None:
    """Wait for a moment in a running job, and kill what it says.

    Args:
        moment: When, and what.
        job: The job.
        progress: How many marks of the moment's stage there are; below 0 before the stage begins,
            for else what the stages before it run could be taken for its own.
        nodes: The nodes on which the job runs, where one of them is to be lost.

    Returns:
        What was killed, for messages; None if the job was over before it could be.
    """
    reached = _before_end(job, lambda: progress() >= moment.after, PROGRESS_POLL_S)
    if not reached:
        return None
    time.sleep(moment.delay_s)
    if moment.victim is Victim.NODE:
        assert nodes is not None, "no nodes to lose"
        if job.client.poll() is not None:
            return None
        # Training goes on undisturbed where a node is lost that no rank is on.
        nodes.lose(_pick(nodes.training() or nodes.workers, moment.pick))
        return f"a node, with {progress()} marks of {moment.stage}"
    killed = _before_end(job, lambda: _kill_one(moment, job), POLL_S)
    return killed and f"{killed}, with {progress()} marks of {moment.stage}"


def _before_end(job: Job, reached: Callable[[], T], poll_s: float) -> T | None:
    """Wait until a value is true, and return it, or None if the job ends first."""
    while job.client.poll() is None:
        value = reached()
        if value:
            return value
        time.sleep(poll_s)
    return None


def _kill_one(moment: Moment, job: Job) -> str | None:
    """Kill one of the processes that a moment may mean now, if there is any; return its name."""
    if moment.victim is Victim.DRIVER:
        found = job.drivers()
    else:
        found = processes(job.head.process.pid, NAMES[moment.victim])
    if not found:
        return None
    process = _pick(sorted(found, key=lambda one: one.pid), moment.pick)
    try:
        kill(process)
    except psutil.NoSuchProcess:
        # It ended by itself meanwhile.
        return None
    return f"{moment.victim} {process.pid}"


def _pick(choices: Sequence[Any], pick: float) -> Any:
    return choices[int(pick * len(choices))]
