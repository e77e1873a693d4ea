"""Ranks under Ray Train, as both stages that train start them.

Ray Train starts the ranks and restarts them together when one is lost, but is handed no checkpoint:
the list that it keeps of them is not written atomically (a kill at that moment leaves a run that
never starts again), and two runs at once would delete each other's. So a stage
keeps its checkpoints itself, and Ray Train's own directory, which it insists on, is a temporary one
of each node, with a name of its own for each run.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from raysae.errors import RaysaeError
from raysae.stages._capacity import Resources, check_fits
from raysae.stages._pool import cause_of_ours, unwrapped_errors
from raysae.stages.connection import connect

RankFunction = Callable[[dict[str, Any]], None]
"""What Ray Train calls in every rank."""


@dataclass(frozen=True)
class RankPlan:
    """What is asked of Ray for the ranks of one training.

    Attributes:
        workers: Ranks, one process each.
        cpus: CPU cores for each.
        gpus: GPUs for each, 0 or 1.
        max_failures: How often all ranks are started again after one was lost.
        settings: The settings that decide how many ranks of what size there are, for messages.
    """

    workers: int
    cpus: float
    gpus: int
    max_failures: int
    settings: tuple[str, ...]


def run_ranks(
    rank: RankFunction,
    arguments: Mapping[str, Any],
    plan: RankPlan,
) -> None:
    """Run a function in every rank and wait for them.

    Args:
        rank: What each rank does; it is called again after a restart.
        arguments: What it is called with.
        plan: Ranks, resources, restarts.

    Raises:
        SettingsError: The ranks can never run at the same time on this cluster.
        RaysaeError: What a rank raised. It would be raised again, so nothing is restarted for it.
        KeyboardInterrupt, SystemExit: SIGINT came.
    """
    connect()
    size = Resources(plan.cpus, plan.gpus)
    check_fits(f"{plan.workers} rank(s) of {size} each", [size] * plan.workers, plan.settings)
    for failures in range(plan.max_failures + 1):
        try:
            with unwrapped_errors(), _restored_interrupt():
                _trainer(rank, arguments, plan).fit()
        except ControllerError as error:
            # Ray Train restarts ranks that were lost while they ran, but not all of those that
            # were lost while they were started: whoever waited for the lost one fails first.
            lost = isinstance(error.controller_failure, (RayActorError, RayTaskError))
            if not lost or failures == plan.max_failures:
                raise
            sys.stdout.write("train: a rank was lost while the ranks were started; once more\n")
            sys.stdout.flush()
        else:
            return
        finally:
            _give_back_reserved()


def _give_back_reserved() -> None:
    """Give back the resources that Ray Train reserved for this job's ranks, if it did not.

    It forgets them when ranks are lost while they are started; ranks that need them would wait for
    ever. Nothing else in a job of ours reserves any.
    """
    job = ray.get_runtime_context().get_job_id()
    for name, group in placement_group_table().items():
        # The last letters of a group's id are those of the job that it was made by.
        if name.endswith(job) and group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


@contextmanager
def _restored_interrupt() -> Iterator[None]:
    """Undo what Ray Train does to SIGINT.

    Its own answer is left in place when the ranks are gone, where a later Ctrl-C would meet it; and
    it ends the process, now with exit code 0 as if all were done, now with 1.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no answer can be set here, by Ray Train neither
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if stop.code:
            raise
        raise KeyboardInterrupt from stop
    finally:
        signal.signal(signal.SIGINT, before)


def _trainer(rank: RankFunction, arguments: Mapping[str, Any], plan: RankPlan) -> TorchTrainer:
    """Build what runs the ranks once, under a name of its own."""
    return TorchTrainer(
        _quiet_about_ours(rank),
        train_loop_config=dict(arguments),
        torch_config=TorchConfig(backend="nccl" if plan.gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=plan.workers,
            use_gpu=plan.gpus > 0,
            resources_per_worker={"CPU": plan.cpus, **({"GPU": plan.gpus} if plan.gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name=f"run-{uuid.uuid4().hex}",
            storage_path=str(Path(tempfile.gettempdir()) / f"raysae-ray-train-{os.getuid()}"),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            failure_config=ray.train.FailureConfig(max_failures=plan.max_failures),
            callbacks=[_StopOnOurErrors()],
        ),
    )


def _quiet_about_ours(rank: RankFunction) -> RankFunction:
    """Let Ray Train print no traceback of an error of ours, which the job prints as a sentence."""

    @wraps(rank)
    def call(arguments: dict[str, Any]) -> None:
        try:
            rank(arguments)
        except RaysaeError:
            _silence()
            raise

    return call


def _silence() -> None:
    """Let Ray Train log nothing more in this process, which ends now."""
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)


class _StopOnOurErrors(ray.train.UserCallback):
    """Ends the training at an error of ours: Ray Train would start all ranks again for it."""

    def after_exception(
        self,
        run_context: Any,  # noqa: ARG002
        worker_exceptions: Mapping[int, Exception],
    ) -> None:
        """Raise it in Ray Train's controller, which then ends the other ranks and the training."""
        for error in worker_exceptions.values():
            known = cause_of_ours(error)
            if known is not None:
                _silence()
                raise known
