from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import DataError, SettingsError
from raysae.stages._ranks import RankPlan, run_ranks

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


def note_start_of(config: dict[str, Any]) -> None:
    note_start(config["directory"])


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
    """Ray Train itself takes that for an error of its own, and gives up."""

    def rank(config: dict[str, Any]) -> None:
        note_start(config["directory"])
        if starts(config["directory"]) == 1:
            os._exit(1)

    run_ranks(rank, {"directory": tmp_path}, ranks(1, max_failures=1))
    assert starts(tmp_path) == 2


def test_an_interrupt_ends_the_ranks_as_elsewhere(tmp_path: Path) -> None:
    """Ray Train's own answer to SIGINT may end with exit code 0, and stays."""

    def rank(config: dict[str, Any]) -> None:
        note_start(config["directory"])
        time.sleep(600)

    def interrupt() -> None:
        while not starts(tmp_path):
            time.sleep(0.1)
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.main_thread().ident
    assert main is not None
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)) as stop:
            run_ranks(rank, {"directory": tmp_path}, ranks(1))
        assert not isinstance(stop.value, SystemExit) or stop.value.code
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    run_ranks(note_start_of, {"directory": tmp_path}, ranks(1))
    assert signal.getsignal(signal.SIGINT) is before


def test_ranks_that_never_fit_are_refused_instead_of_waited_for(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"^train\.workers: 5 rank\(s\) of 0\.5 CPUs .* 2 CPUs .*or train\.cpus_per_worker",
    ):
        run_ranks(note_start, {}, ranks(5))  # type: ignore[arg-type]
