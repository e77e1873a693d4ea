from __future__ import annotations

from pathlib import Path

import pytest

from raysae.errors import StorageError
from raysae.storage import Directory
from raysae.upkeep import hashing
from raysae.upkeep.verify import VerifySettings, run_verify
from tests.upkeep.builders import new_storage, sharded
from tests.upkeep.helpers import data_file, verified


def test_large_files_go_through_a_small_buffer(tmp_path: Path) -> None:
    """Sixteen megabytes in pieces of four, twice: pieces do not outlive the next one."""
    root = new_storage(tmp_path)
    made = sharded(root, shards=2, shard_bytes=(16 << 20) + 2)
    assert run_verify(VerifySettings(str(tmp_path))).bytes > 32 << 20
    sizes = {len(piece) for piece in made.directory.stream(data_file(made.directory))}
    assert sizes == {4 << 20, 2}


def test_few_files_wait_at_a_time(root: Directory) -> None:
    made = sharded(root, shards=20)
    asked = 0

    def checks():
        nonlocal asked
        for name in [e.key for e in made.directory.entries() if e.key.startswith("data/")]:
            asked += 1
            record = hashing.FileRecord(name, 1000, "0" * 64)
            yield hashing.Check("x", "", made.directory, record)

    ends = hashing.compare_all(checks(), 2, lambda _: None, lambda: None)
    next(ends)
    assert asked <= 2 * hashing.WAITING
    assert len(list(ends)) == 19


def test_what_cannot_be_read_is_no_damage_to_repair(
    root: Directory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sharded(root)

    def broken(self: Directory, name: str) -> None:
        raise StorageError("storage: the disk is not there.")

    monkeypatch.setattr(Directory, "stream", broken)
    ok, told = verified(root, capsys, repair=True)
    assert not ok
    assert told["removed"] == []
    assert made.is_finished()
