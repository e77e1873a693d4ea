from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from raysae.artifacts import SPEC_FILE
from raysae.errors import StorageError
from raysae.storage import Directory
from raysae.storage.local import LocalBackend
from raysae.storage.posix import Posix
from raysae.upkeep import collect
from raysae.upkeep.clock import StorageClock, storage_clock
from tests.upkeep.builders import (
    HOUR,
    WEEK,
    age,
    new_storage,
    sharded,
)
from tests.upkeep.helpers import garbage


@pytest.mark.parametrize("wrong", [-3 * WEEK, -HOUR, HOUR, 3 * WEEK])
def test_this_machines_clock_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    root = new_storage(tmp_path)
    young, old = sharded(root, done=1, number=1), sharded(root, done=1, number=2)
    age(tmp_path / old.name, WEEK + 60)
    age(tmp_path / young.name, WEEK - 600)
    right = time.time()
    monkeypatch.setattr(time, "time", lambda: right + wrong)
    assert garbage(root) == {old.name: "abandoned"}


@pytest.mark.parametrize("wrong", [-3 * WEEK, 3 * WEEK])
def test_the_storages_clock_may_be_any(tmp_path: Path, wrong: float) -> None:
    """A file server three weeks ahead or behind: all it stamps is, what is written now too."""

    class Server(Posix):
        def write(self, path: Path, data: bytes) -> None:
            super().write(path, data)
            then = path.stat().st_mtime + wrong
            os.utime(path, (then, then))

    new_storage(tmp_path)
    root = Directory(LocalBackend(tmp_path, Server()))
    young, old = sharded(root, done=1, number=1), sharded(root, done=1, number=2)
    for path in (tmp_path / "activations").rglob("*.arrow"):
        os.utime(path, (path.stat().st_mtime + wrong,) * 2)
    age(tmp_path / old.name, WEEK + 60)
    clock = storage_clock(root, WEEK)
    keep = collect.Keep(3, ("saes",), used_caches=False)
    plan = collect.plan_garbage(root, keep, clock)
    assert [item.name for item in plan.items] == [old.name]
    assert young.directory.exists(SPEC_FILE)


def test_a_storage_that_tells_no_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = new_storage(tmp_path)
    entries = Directory.entries
    monkeypatch.setattr(
        Directory,
        "entries",
        lambda self: (e._replace(modified=float("nan")) for e in entries(self)),
    )
    with pytest.raises(StorageError, match="does not tell when"):
        garbage(root)
    assert not StorageClock(time.time(), time.monotonic(), WEEK).is_old(float("nan"))


def test_where_nothing_can_be_deleted_one_can_look_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_storage(tmp_path)
    sharded(root)

    def denied(self: Directory, name: str) -> None:
        raise StorageError(f"storage: {name} is denied.")

    monkeypatch.setattr(Directory, "delete", denied)
    assert garbage(root) == {}
