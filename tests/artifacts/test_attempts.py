from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysae.artifacts.attempts import TRUSTED_ATTEMPTS, Attempts
from raysae.errors import StorageError
from raysae.storage import Directory
from raysae.storage.local import LocalBackend


@pytest.fixture
def attempts(storage_root: Directory) -> Attempts:
    return Attempts(storage_root / "kind" / "id" / "attempts", "work")


def marks(attempts: Attempts) -> list[str]:
    return [entry.key for entry in attempts.directory.entries()]


def die(attempts: Attempts, shard: str) -> bool:
    """Begin an attempt as a process does that is killed in it."""
    return attempts._begin(shard) > TRUSTED_ATTEMPTS


def test_an_attempt_leaves_its_mark_while_it_lasts(attempts: Attempts) -> None:
    with attempts.attempt("shard-00000") as careful:
        assert not careful
        assert marks(attempts) == ["shard-00000.work-1"]
    assert marks(attempts) == []


def test_who_comes_after_dead_workers_is_careful(attempts: Attempts) -> None:
    assert [die(attempts, "shard-00000") for _ in range(4)] == [False] * TRUSTED_ATTEMPTS + [
        True
    ] * 2
    with attempts.attempt("shard-00001") as careful:
        assert not careful


def test_a_success_clears_the_marks_before_it(attempts: Attempts) -> None:
    for _ in range(3):
        die(attempts, "shard-00000")
    die(attempts, "shard-00001")
    with attempts.attempt("shard-00000") as careful:
        assert careful
    assert marks(attempts) == ["shard-00001.work-1"]


def test_care_that_lasts_is_taken_again(attempts: Attempts) -> None:
    lasting = replace(attempts, lasting=True)
    die(lasting, "shard-00000")
    with lasting.attempt("shard-00000") as careful:
        assert not careful
    assert marks(lasting) == []
    for _ in range(TRUSTED_ATTEMPTS):
        die(lasting, "shard-00000")
    for _ in range(3):
        with lasting.attempt("shard-00000") as careful:
            assert careful
    assert len(marks(lasting)) == TRUSTED_ATTEMPTS


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_is_no_death(attempts: Attempts, error: type[BaseException]) -> None:
    die(attempts, "shard-00000")
    with pytest.raises(error), attempts.attempt("shard-00000"):
        raise error
    assert marks(attempts) == ["shard-00000.work-1"]


def test_roles_count_for_themselves(storage_root: Directory) -> None:
    read, work = (Attempts(storage_root, role) for role in ("read", "work"))
    for _ in range(TRUSTED_ATTEMPTS):
        die(read, "shard-00000")
    assert not die(work, "shard-00000")
    assert die(read, "shard-00000")


def test_where_nothing_can_be_deleted_marks_stay(tmp_path: Path) -> None:
    class Keeping(LocalBackend):
        def delete(self, key: str) -> None:
            raise StorageError("storage: denied.")

    attempts = Attempts(Directory(Keeping(tmp_path)), "work")
    for _ in range(2):
        with attempts.attempt("shard-00000"):
            pass
    assert marks(attempts) == ["shard-00000.work-1", "shard-00000.work-2"]


def test_where_nothing_can_be_written_nothing_begins(tmp_path: Path) -> None:
    class Denying(LocalBackend):
        def create(self, key: str, data: bytes) -> bool:
            raise StorageError("storage: denied.")

    def work() -> Any:
        with Attempts(Directory(Denying(tmp_path)), "work").attempt("shard-00000"):
            raise AssertionError("the shard was begun")

    with pytest.raises(StorageError, match="denied"):
        work()


def test_of_two_at_once_each_has_a_number(attempts: Attempts) -> None:
    with attempts.attempt("shard-00000"), attempts.attempt("shard-00000"):
        assert marks(attempts) == ["shard-00000.work-1", "shard-00000.work-2"]
    assert marks(attempts) == []
