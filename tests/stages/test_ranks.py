from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import DataError, SettingsError
from raysae.stages._ranks import RankPlan, run_ranks

REPOSITORY = Path(__file__).parents[2]

on_the_shared_ray = pytest.mark.usefixtures("shared_ray")


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


@pytest.mark.ray
@on_the_shared_ray
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


@pytest.mark.ray
@on_the_shared_ray
def test_a_lost_rank_is_started_again(tmp_path: Path) -> None:
    def rank(config: dict[str, Any]) -> None:
        note_start(config["directory"])
        if starts(config["directory"]) == 1:
            time.sleep(3)  # Ray Train gives up on a rank that dies while the ranks are started
            os._exit(1)

    run_ranks(rank, {"directory": tmp_path}, ranks(1, max_failures=1))
    assert starts(tmp_path) == 2


IN_A_RAY_OF_ITS_OWN = """
import functools, os, pathlib, signal, sys, time
import ray
from raysae.stages._ranks import RankPlan, run_ranks

ray.init = functools.partial(
    ray.init, address="local", num_cpus=1, include_dashboard=False, _temp_dir=sys.argv[1]
)
ALL = RankPlan(1, 1, 0, 1, ("train.workers", "train.cpus_per_worker"))
mark = sys.argv[2]
"""

LOST = """
def rank(config):
    if not os.path.exists(config["mark"]):
        pathlib.Path(config["mark"]).touch()
        os._exit(1)

run_ranks(rank, {"mark": mark}, ALL)
run_ranks(rank, {"mark": mark}, ALL)
print("done", flush=True)
"""

INTERRUPTED = """
def rank(config):
    pathlib.Path(config["mark"]).touch()
    time.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)
run_ranks(lambda config: None, {}, ALL)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
try:
    run_ranks(rank, {"mark": mark}, ALL)
except (KeyboardInterrupt, SystemExit) as stop:
    assert not isinstance(stop, SystemExit) or stop.code
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print("interrupted", flush=True)
"""


@contextmanager
def own_ray(script: str, mark: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a script that has a Ray of one core for itself."""
    with (
        tempfile.TemporaryDirectory(prefix="rs-", dir="/tmp") as temporary,
        subprocess.Popen(
            [sys.executable, "-c", IN_A_RAY_OF_ITS_OWN + script, temporary, str(mark)],
            cwd=REPOSITORY,
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        yield process


@pytest.mark.cluster
def test_a_rank_that_is_lost_at_its_start_is_started_again(tmp_path: Path) -> None:
    """Ray Train itself takes that for an error of its own, gives up, and keeps the resources: ranks
    that need all there are would wait for ever."""
    with own_ray(LOST, tmp_path / "mark") as process:
        assert process.stdout is not None
        assert "done\n" in process.stdout.read()


@pytest.mark.cluster
def test_an_interrupt_ends_the_ranks_as_elsewhere(tmp_path: Path) -> None:
    """Ray Train's own answer to SIGINT may end with exit code 0, and stays."""
    mark = tmp_path / "mark"
    with own_ray(INTERRUPTED, mark) as process:
        assert process.stdout is not None
        while process.poll() is None and not mark.exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert "interrupted\n" in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.ray
@on_the_shared_ray
def test_ranks_that_never_fit_are_refused_instead_of_waited_for(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"^train\.workers: 5 rank\(s\) of 0\.5 CPUs .* 2 CPUs .*or train\.cpus_per_worker",
    ):
        run_ranks(note_start, {}, ranks(5))  # type: ignore[arg-type]
