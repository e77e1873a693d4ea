from __future__ import annotations

import errno
import hashlib
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from raysae.artifacts import Publication, appending
from raysae.artifacts.appending import AppendedFile
from raysae.errors import StorageError
from raysae.storage import Directory
from tests.storage.fake_store import Store, fake_backend
from tests.storages import at

SMALL_BLOCK = 2 * mmap.PAGESIZE


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "_BLOCK_BYTES", SMALL_BLOCK)


def append(path: Path, pieces: list[bytes], *, direct: bool = True) -> str:
    with AppendedFile(path, direct=direct) as file:
        for done, piece in enumerate(pieces):
            assert file.tell() == sum(map(len, pieces[:done]))
            assert file.write(piece) == len(piece)
    assert file.closed
    return file.sha256()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(
    "lengths",
    [
        [],
        [0],
        [1],
        [SMALL_BLOCK - 1],
        [SMALL_BLOCK],
        [SMALL_BLOCK, SMALL_BLOCK],
        [1, 70_000, 3, 9 * SMALL_BLOCK, 0, mmap.PAGESIZE],
        [mmap.PAGESIZE],
    ],
)
def test_the_file_and_its_checksum(tmp_path: Path, lengths: list[int], direct: bool) -> None:
    pieces = [os.urandom(length) for length in lengths]
    path = tmp_path / "file"
    path.write_bytes(b"what was there before, and longer" * 10_000)
    checksum = append(path, pieces, direct=direct)
    assert path.read_bytes() == b"".join(pieces)
    assert checksum == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_blocks_of_the_real_size(tmp_path: Path) -> None:
    pieces = [os.urandom(n) for n in (3, 20 << 20, 13 << 20, 5)]
    assert append(tmp_path / "file", pieces) == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)


def refusing_direct(number: int) -> Callable[..., int]:
    really = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number), str(path))
        return really(path, flags, mode)

    return refuse


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_without_direct_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(appending.os, "open", refusing_direct(number))
    append(tmp_path / "file", [b"x" * 30_000])
    assert (tmp_path / "file").read_bytes() == b"x" * 30_000


@pytest.mark.usefixtures("small_blocks")
def test_a_file_system_that_refuses_them_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with sectors larger than a page does; short writes go on where they ended."""
    really, refused = os.pwrite, []

    def pwrite(file: int, data: memoryview, offset: int) -> int:
        if appending.fcntl.fcntl(file, appending.fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(offset)
            raise OSError(errno.EINVAL, "Invalid argument")
        return really(file, data[:1000], offset)

    monkeypatch.setattr(appending.os, "pwrite", pwrite)
    content = os.urandom(5 * SMALL_BLOCK)
    append(tmp_path / "file", [content])
    assert (tmp_path / "file").read_bytes() == content
    assert refused == [0]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("at_byte", [0, 5 * SMALL_BLOCK, 9 * SMALL_BLOCK])
def test_a_disk_that_fills_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_byte: int
) -> None:
    really = os.pwrite

    def pwrite(file: int, data: memoryview, offset: int) -> int:
        if offset >= at_byte:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(file, data, offset)

    monkeypatch.setattr(appending.os, "pwrite", pwrite)
    files = Publication(at(tmp_path))

    def write() -> None:
        with files.appending("a") as file:
            for _ in range(10):
                file.write(b"x" * SMALL_BLOCK)

    with pytest.raises(StorageError, match=r"^storage: the disk of \S+ is full; "):
        write()
    assert not files.records
    assert not list(tmp_path.rglob("a*"))


def test_an_error_of_the_writer_is_the_one_that_counts(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), AppendedFile(tmp_path / "file", direct=True) as file:
        file.write(bytes([1 // 0]))
    names = [one.name for one in threading.enumerate()]
    assert not [name for name in names if name.startswith(("hashing", "writing"))]


@pytest.mark.parametrize("is_local", [True, False])
def test_what_is_published(tmp_path: Path, is_local: bool) -> None:
    directory = at(tmp_path) if is_local else Directory(fake_backend(Store()))
    files = Publication(directory)
    with files.appending("a-{checksum}.bin") as file:
        file.write(b"some")
        file.write(b"thing")
    (record,) = files.records
    assert record.sha256 == hashlib.sha256(b"something").hexdigest()
    assert record.name == f"a-{record.sha256[:16]}.bin"
    assert directory.read_bytes(record.name) == b"something"
    with pytest.raises(ZeroDivisionError), files.appending("b") as file:
        file.write(bytes([1 // 0]))
    assert len(files.records) == 1
    assert not directory.exists("b")
