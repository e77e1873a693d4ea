from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import DataError, SettingsError
from raysae.stages._ranks import RankPlan, run_ranks

REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("shared_ray")]


def ranks(workers: int, max_failures: int = 0) -> RankPlan:
    return RankPlan(workers, 0.5, 0, max_failures, ("train.workers", "train.cpus_per_worker"))


def starts(directory: Path) -> int:
    """Return how often a rank was started."""
    return len(list(directory.glob("start-*")))


def note_start(directory: Path) -> int:
    """Leave a file for this start; return the rank."""
    import ray.train

    (directory / f"start-{time.time_ns()}-{os.getpid()}").touch()
    return int(ray.train.get_context().get_world_rank())


def test_an_error_of_ours_ends_all_ranks_at_once(tmp_path: Path) -> None:
    def rank(config: dict[str, Any]) -> None:
        import ray.train.collective

        if note_start(config["directory"]) == 1:
            raise DataError("x is damaged; restore it.")
        ray.train.collective.barrier()  # waits for the other rank, which never comes

    plan = ranks(2, max_failures=3)
    with pytest.raises(DataError, match=r"^x is damaged; restore it\.$"):
        run_ranks(rank, {"directory": tmp_path}, plan)
    assert starts(tmp_path) == 2


def test_a_lost_rank_is_started_again(tmp_path: Path) -> None:
    def rank(config: dict[str, Any]) -> None:
        note_start(config["directory"])
        if starts(config["directory"]) == 1:
            time.sleep(3)  # Ray Train gives up on a rank that dies while the ranks are started
            os._exit(1)

    run_ranks(rank, {"directory": tmp_path}, ranks(1, max_failures=1))
    assert starts(tmp_path) == 2


def test_a_rank_that_is_lost_at_its_start_is_started_again(tmp_path: Path) -> None:
    """Ray Train itself takes that for an error of its own, gives up, and keeps the resources: a
    rank that needs all there are would wait for ever."""

    def rank(config: dict[str, Any]) -> None:
        note_start(config["directory"])
        if starts(config["directory"]) == 1:
            os._exit(1)

    run_ranks(rank, {"directory": tmp_path}, RankPlan(1, 2, 0, 1, ("train.workers",)))
    assert starts(tmp_path) == 2


INTERRUPTED = """
import functools, pathlib, signal, sys, time
import ray
from raysae.stages._ranks import RankPlan, run_ranks

ray.init = functools.partial(
    ray.init, address="local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1]
)

def rank(config):
    pathlib.Path(config["started"]).touch()
    time.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)
plan = RankPlan(1, 0.5, 0, 0, ("train.workers", "train.cpus_per_worker"))
run_ranks(lambda config: None, {}, plan)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
try:
    run_ranks(rank, {"started": sys.argv[2]}, plan)
except (KeyboardInterrupt, SystemExit) as stop:
    assert not isinstance(stop, SystemExit) or stop.code
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print("interrupted", flush=True)
"""


def test_an_interrupt_ends_the_ranks_as_elsewhere(tmp_path: Path) -> None:
    """Ray Train's own answer to SIGINT may end with exit code 0, and stays.

    In a process of its own, because the ranks' share of the cluster may be held until that ends.
    """
    started = tmp_path / "started"
    with tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as temporary:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, temporary, str(started)],
            cwd=REPOSITORY,
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            while process.poll() is None and not started.exists():
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert "interrupted\n" in process.stdout.read()
        assert process.wait() == 0


def test_ranks_that_never_fit_are_refused_instead_of_waited_for(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"^train\.workers: 5 rank\(s\) of 0\.5 CPUs .* 2 CPUs .*or train\.cpus_per_worker",
    ):
        run_ranks(note_start, {}, ranks(5))  # type: ignore[arg-type]
