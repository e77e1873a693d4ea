"""Rounds in each of which something is killed in the middle of the chain of the main job."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.cluster.content import Storage, finished_files, latest_step, marks, read, stamps
from tests.cluster.harness import wait_until_idle
from tests.cluster.moments import Moment, Victim
from tests.cluster.nodes import Nodes
from tests.cluster.runner import Runner, Undisturbed
from tests.cluster.sameness import assert_same_content
from tests.cluster.settings import CHECKPOINT_EVERY, STEPS, TUNE_CHECKPOINT_EVERY, TUNE_STEPS
from tests.cluster.strikes import strike

MADE_BY = {
    "cache": "activations",
    "train": "saes",
    "weights": "weights",
    "score": "scores",
    "select": "subsets",
    "finetune": "tuned",
}
"""What each stage makes, in the order in which they run."""

STEPS_PER_MARK = {"train": CHECKPOINT_EVERY, "finetune": TUNE_CHECKPOINT_EVERY}
LAST_STEP = {"train": STEPS, "finetune": TUNE_STEPS}
MAX_TRIES = 4
MAX_RUNS = 3
WENT_ON = re.compile(r"train: goes on from step (\d+)")
ON_ALL_NODES = ("--run.min_actors=2", "--run.max_actors=2")


@dataclass(frozen=True)
class Played:
    """A round that is over, and ended with the same content.

    Attributes:
        moment: What was planned.
        when: How far the stage was.
        redone: What was done again.
        runs: How often the job was submitted.
        seconds: From the first submission to the last one's end.
    """

    moment: Moment
    when: str
    redone: str
    runs: int
    seconds: float


def play(
    moment: Moment,
    runner_in: Callable[[str], Runner],
    there: Undisturbed,
    all_nodes: Callable[[], Nodes] | None,
) -> Played:
    """Run the job, kill what a moment says, and see that the content is the same in the end.

    What a job was too fast for is tried again on an empty storage, earlier each time.

    Args:
        moment: What is killed, and when.
        runner_in: Returns a runner with a storage and logs of a name.
        there: What nothing happened to.
        all_nodes: Returns where the job runs, none of them lost, if one of them is to be.
    """
    for attempt in range(MAX_TRIES):
        runner = runner_in(f"try-{attempt}")
        runner.storage.take(there.storage, *kinds_before(moment.stage))
        started = time.monotonic()
        nodes = all_nodes() if all_nodes else None
        killed, outputs, finished = _run_and_kill(moment, runner, there.storage, nodes)
        seconds = time.monotonic() - started
        assert_same_content(there.storage, runner.storage)
        again = done_again(finished, runner.storage)
        assert not again, f"finished before the kill, and done again: {again}"
        assert (runner.storage.root / "tuned").exists() == (moment.stage == "finetune")
        if killed is not None:
            redone = _redone(moment, outputs, runner.storage)
            when = killed.partition("with ")[2]
            return Played(moment, when, redone, len(outputs), seconds)
        moment = replace(moment, after=moment.after // 2, delay_s=0.0)
    raise AssertionError(f"the job was over before {moment} each time")


def kinds_before(stage: str) -> list[str]:
    """Return what lies in the storage when a stage begins."""
    kinds = list(MADE_BY.values())
    return ["snapshots", *kinds[: list(MADE_BY).index(stage)]] if stage != "cache" else []


def _run_and_kill(
    moment: Moment, runner: Runner, there: Storage, nodes: Nodes | None
) -> tuple[str | None, list[str], dict[str, tuple[int, int]]]:
    """Run the job until it ends well; return the kill, the outputs, and what was done before it."""
    name = "finetune" if moment.stage == "finetune" else "filter"
    more = ON_ALL_NODES if nodes else ()
    job = runner.start(name, *more)
    killed = strike(moment, job, progress_of(moment.stage, runner.storage, there), nodes)
    if is_over(moment.stage, runner.storage, there):
        killed = None  # What was killed may have been the next stage's.
    finished = finished_everywhere(runner.storage)
    ended = job.wait()
    outputs = [ended.output]
    while moment.victim is Victim.DRIVER and ended.exit_code != 0:
        assert ended.result is None, ended.output[-6000:]
        assert len(outputs) < MAX_RUNS, "it does not come to an end"
        wait_until_idle(runner.head.process.pid)
        ended = runner.run(name, *more)
        outputs.append(ended.output)
    assert ended.exit_code == ended.client == 0, f"{killed}\n{ended.output[-8000:]}"
    return killed, outputs, finished


def progress_of(stage: str, storage: Storage, there: Storage) -> Callable[[], int]:
    """Return what counts the marks of a stage; below 0 before it begins."""
    if stage == "score":
        scores = storage.root / "scores"
        return lambda: len(storage.score_marks()) if scores.exists() else -1
    artifact = storage.sibling(there, MADE_BY[stage])

    def progress() -> int:
        if not (artifact / "spec.json").exists():
            return -1
        if stage in STEPS_PER_MARK:
            return latest_step(artifact) // STEPS_PER_MARK[stage]
        return len(marks(artifact))

    return progress


def is_over(stage: str, storage: Storage, there: Storage) -> bool:
    """Whether a stage has finished what it makes, or all steps of a training are done."""
    if stage == "score":
        return any((storage.root / "scores" / "manifests").glob("*.parquet"))
    artifact = storage.sibling(there, MADE_BY[stage])
    return (artifact / "metadata.json").exists() or latest_step(artifact) == LAST_STEP.get(stage)


def finished_everywhere(storage: Storage) -> dict[str, tuple[int, int]]:
    """Return inode and time of writing of all files that a mark or metadata name now."""
    found: dict[str, tuple[int, int]] = {}
    for kind in ("activations", "weights"):
        for artifact in (storage.root / kind).glob("*"):
            found |= finished_files(artifact)
    for metadata in storage.root.glob("*/*/metadata.json"):
        files = [metadata.parent / file["name"] for file in read(metadata)["files"]]
        found |= stamps([metadata, *files])
    for mark in storage.score_marks():
        files = [storage.root / "scores" / file["name"] for file in read(mark)["files"]]
        found |= stamps([mark, *files])
    return found


def done_again(finished: dict[str, tuple[int, int]], storage: Storage) -> list[str]:
    """Return which finished files were written again."""
    now = finished_everywhere(storage)
    return [name for name, stamp in finished.items() if now.get(name) != stamp]


def _redone(moment: Moment, outputs: list[str], storage: Storage) -> str:
    """Say what was done again: of a training nothing before the checkpoint that was there."""
    stage = moment.stage
    if stage in STEPS_PER_MARK:
        if stage == "finetune":
            went_on = int(read(storage.artifact("tuned") / "metadata.json")["resumed_at_step"])
        else:
            steps = [int(step) for output in outputs for step in WENT_ON.findall(output)]
            went_on = max(steps, default=0)
        assert went_on >= moment.after * STEPS_PER_MARK[stage], "began anew"
        return f"steps {went_on + 1} to {LAST_STEP[stage]}"
    return "the selection" if stage == "select" else "the shards in flight"
