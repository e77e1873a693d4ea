from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from raysae.artifacts import Publication, following
from raysae.artifacts.following import FollowedFile
from raysae.storage import Directory
from tests.storage.fake_store import Store, fake_backend
from tests.storages import at


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize(
    "pieces", [[], [b""], [b"a"], [os.urandom(n) for n in (1, 70_000, 3, 9 << 20)]]
)
def test_the_checksum_is_that_of_the_file(tmp_path: Path, pieces: list[bytes], sync: bool) -> None:
    path = tmp_path / "file"
    with FollowedFile(path, sync=sync) as followed, path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            file.flush()
    assert followed.sha256() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_the_disk_is_kept_busy_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    reached = threading.Event()
    monkeypatch.setattr(following, "_SYNC_BYTES", 100)

    def fdatasync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        reached.set()

    monkeypatch.setattr(following.os, "fdatasync", fdatasync)
    path = tmp_path / "file"
    with FollowedFile(path, sync=True), path.open("wb", buffering=0) as file:
        file.write(b"x" * 99)
        assert not reached.wait(0.1)
        for _ in range(3):
            file.write(b"x" * 100)
            assert reached.wait(20)
            reached.clear()
    assert synced[0] >= 100


def test_a_file_that_is_not_only_appended_to_has_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with FollowedFile(path, sync=False) as followed:
        path.write_bytes(b"whole")
    path.write_bytes(b"wh")
    assert followed.sha256() is None


def test_a_file_that_cannot_be_followed_is_hashed_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: FollowedFile) -> None:
        raise PermissionError

    monkeypatch.setattr(FollowedFile, "_hash_all", refuse)
    files = Publication(at(tmp_path))
    with files.appending("a") as path:
        path.write_bytes(b"something")
    assert files.records[0].sha256 == hashlib.sha256(b"something").hexdigest()


def test_a_disk_that_fills_up_while_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_SYNC_BYTES", 1)
    failed = threading.Event()

    def fdatasync(_: int) -> None:
        failed.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(following.os, "fdatasync", fdatasync)

    def write(path: Path) -> None:
        with FollowedFile(path, sync=True), path.open("wb", buffering=0) as file:
            file.write(b"x" * 99)
            assert failed.wait(20)

    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file")


def test_an_error_of_the_writer_is_the_one_that_counts(tmp_path: Path) -> None:
    with pytest.raises(KeyError), FollowedFile(tmp_path / "never", sync=True):
        raise KeyError
    assert not [
        one for one in threading.enumerate() if "_sync" in one.name or "_follow" in one.name
    ]


@pytest.mark.parametrize("is_local", [True, False])
def test_what_is_published_while_followed(tmp_path: Path, is_local: bool) -> None:
    directory = at(tmp_path) if is_local else Directory(fake_backend(Store()))
    files = Publication(directory)
    with files.appending("a-{checksum}.bin") as path, path.open("wb") as file:
        file.write(b"some")
        file.write(b"thing")
    (record,) = files.records
    assert record.sha256 == hashlib.sha256(b"something").hexdigest()
    assert record.name == f"a-{record.sha256[:16]}.bin"
    assert directory.read_bytes(record.name) == b"something"
    with pytest.raises(ZeroDivisionError), files.appending("b") as path:
        path.write_bytes(bytes([1 // 0]))
    assert len(files.records) == 1
    assert not directory.exists("b")
