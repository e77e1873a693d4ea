from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from raysae.errors import DataError, StorageError
from raysae.storage import scratch
from raysae.storage.scratch import finished_or_gone, link_or_copy


@pytest.mark.parametrize("error", [None, ValueError("x"), KeyboardInterrupt(), DataError("x")])
def test_nothing_is_left(tmp_path: Path, error: BaseException | None) -> None:
    def write() -> None:
        with finished_or_gone(tmp_path / "file") as local:
            local.write_bytes(b"x")
            if error is not None:
                raise error

    if error is None:
        write()
    else:
        with pytest.raises(type(error)) as raised:
            write()
        assert raised.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "free", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1 << 40, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1 << 40, True),
        (OSError(errno.EMFILE, "Too many open files"), 0, False),
        (RuntimeError("iostream error"), 0, True),
        (RuntimeError("a bug"), 1 << 40, False),
    ],
)
def test_a_full_disk_is_named_whatever_the_library_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, free: int, full: bool
) -> None:
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    def write() -> None:
        with finished_or_gone(tmp_path / "file"):
            raise error

    with pytest.raises(StorageError if full else type(error)) as raised:
        write()
    if full:
        assert f"disk of {tmp_path}/file" in str(raised.value)
        assert "free some space" in str(raised.value)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "is denied (Permission denied)"),
        (errno.EROFS, "is denied (Read-only file system)"),
        (errno.EIO, "cannot be used (Input/output error)"),
        (errno.ESTALE, "cannot be used (Stale file handle)"),
    ],
)
def test_a_disk_that_cannot_be_written_is_named(tmp_path: Path, number: int, words: str) -> None:
    file = tmp_path / "file"
    said = re.escape(f"storage: {file} {words};")
    with pytest.raises(StorageError, match=said), finished_or_gone(file):
        raise OSError(number, "a library's own words")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_file_appears_under_a_second_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, there: bool
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    (tmp_path / "source").write_bytes(b"x")
    if there:
        (tmp_path / "target").touch()
    link_or_copy(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"x"
    assert (tmp_path / "target").samefile(tmp_path / "source") == links
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_a_file_that_is_not_there_appears_nowhere(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        link_or_copy(tmp_path / "none", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []
