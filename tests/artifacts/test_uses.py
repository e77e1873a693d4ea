from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raysae.artifacts import uses
from raysae.artifacts.uses import USES, using
from raysae.errors import StorageError
from raysae.storage import Directory, Entry, open_storage


def entries(root: Directory) -> list[Entry]:
    """The uses; not the files that are about to become one, which collection leaves alone too."""
    return [entry for entry in (root / USES).entries() if entry.key.endswith(".json")]


def held(root: Directory) -> list[list[str]]:
    return [(root / USES).read_json(entry.key)["artifacts"] for entry in entries(root)]


def test_a_use_is_there_as_long_as_the_block_runs(tmp_path: Path) -> None:
    root = open_storage(str(tmp_path))
    with using(root, ["saes/b", "saes/a"]), using(root, ["scores"]):
        assert sorted(held(root)) == [["saes/a", "saes/b"], ["scores"]]
    assert held(root) == []


def test_an_exception_ends_it_too(tmp_path: Path) -> None:
    root = open_storage(str(tmp_path))
    with pytest.raises(KeyError), using(root, ["saes/a"]):
        raise KeyError
    assert held(root) == []


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses that are written again and again."""
    monkeypatch.setattr(uses, "AGAIN_S", 0.01)


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def modified(root: Directory) -> list[float]:
    return [entry.modified for entry in entries(root)]


def test_a_use_does_not_grow_old_and_comes_back(tmp_path: Path, hurried: None) -> None:
    root = open_storage(str(tmp_path))
    with using(root, ["saes/a"]):
        (use,) = (tmp_path / USES).glob("*.json")
        os.utime(use, (5, 5))
        wait_until(lambda: modified(root) > [5.0])
        use.unlink()
        wait_until(use.exists)
        assert held(root) == [["saes/a"]]
    assert held(root) == []
    time.sleep(0.05)
    assert held(root) == []


def test_a_storage_that_is_away_ends_neither_the_run_nor_the_use(
    tmp_path: Path,
    hurried: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = open_storage(str(tmp_path))
    failures = 0

    def away(self: Directory, name: str, value: object) -> None:
        nonlocal failures
        failures += 1
        raise FileNotFoundError(name) if failures % 2 else StorageError("storage: away.")

    with using(root, ["saes/a"]):
        with monkeypatch.context() as patch:
            patch.setattr(Directory, "put_json", away)
            wait_until(lambda: failures > 4)
        (use,) = (tmp_path / USES).glob("*.json")
        use.unlink()
        wait_until(use.exists)
    assert "raysae-use" not in {thread.name for thread in threading.enumerate()}
    assert capfd.readouterr() == ("", "")
