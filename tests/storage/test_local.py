"""What a directory does beyond what every storage does (test_backend.py)."""

from __future__ import annotations

import errno
import os
import pickle
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import StorageError
from raysae.storage import is_temporary
from raysae.storage.local import LocalBackend
from raysae.storage.posix import Posix


class Noted(Posix):
    """Notes the calls that change something, and can fail or stop in one of them."""

    def __init__(self, fails_in: str = "", error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self.fails_in = fails_in
        self.error = error

    def _call(self, name: str, *paths: Path) -> None:
        self.calls.append(" ".join([name, *(_short(path) for path in paths)]))
        if name == self.fails_in and self.error is not None:
            raise self.error

    def write(self, path: Path, data: bytes) -> None:
        self._call("write", path)
        super().write(path, data)

    def sync_file(self, path: Path) -> None:
        self._call("sync_file", path)
        super().sync_file(path)

    def replace(self, source: Path, target: Path) -> None:
        self._call("replace", source, target)
        super().replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._call("link", source, target)
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self._call("unlink", path)
        super().unlink(path)

    def sync_directory(self, directory: Path) -> None:
        self._call("sync_directory", directory)
        super().sync_directory(directory)

    def make_directory(self, directory: Path) -> None:
        self._call("make_directory", directory)
        super().make_directory(directory)


def _short(path: Path) -> str:
    return "tmp" if is_temporary(path.name) else path.name


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def written(backend: LocalBackend, key: str, data: bytes) -> None:
    local = backend.scratch(key)
    local.write_bytes(data)
    backend.put_file(local, key)


WRITERS: dict[str, Callable[[LocalBackend, str, bytes], Any]] = {
    "put_bytes": LocalBackend.put_bytes,
    "put_file": written,
    "create": LocalBackend.create,
}

STEPS = {
    LocalBackend.put_bytes: ("write", "sync_file", "replace", "sync_directory"),
    written: ("sync_file", "replace", "sync_directory"),
    LocalBackend.create: ("write", "sync_file", "link", "sync_directory"),
}


@pytest.fixture(params=sorted(WRITERS))
def writer(request: pytest.FixtureRequest) -> Callable[[LocalBackend, str, bytes], Any]:
    """A way to publish some bytes."""
    return WRITERS[request.param]


def noted(root: Path) -> tuple[LocalBackend, list[str]]:
    """A backend that has seen its root, and the calls that it makes from now on."""
    posix = Noted()
    backend = LocalBackend(root, posix)
    backend.scratch("file")
    posix.calls.clear()
    return backend, posix.calls


def test_data_and_names_reach_the_disk_before_and_after_the_move(tmp_path: Path) -> None:
    backend, calls = noted(tmp_path)
    backend.put_bytes("file", b"x")
    assert calls == [
        "write tmp",
        "sync_file tmp",
        "replace tmp file",
        f"sync_directory {tmp_path.name}",
    ]


def test_a_created_file_is_linked_when_it_is_whole(tmp_path: Path) -> None:
    backend, calls = noted(tmp_path)
    backend.create("file", b"x")
    assert calls == [
        "write tmp",
        "sync_file tmp",
        "link tmp file",
        "unlink tmp",
        f"sync_directory {tmp_path.name}",
    ]


def test_a_file_that_another_process_created_is_made_durable_too(tmp_path: Path) -> None:
    """The other one may not have come so far, and what this one does next relies on it."""
    (tmp_path / "file").write_bytes(b"other")
    posix = Noted()
    assert not LocalBackend(tmp_path, posix).create("file", b"x")
    assert posix.calls[-1] == f"sync_directory {tmp_path.name}"


def test_new_directories_are_durable_before_anything_is_in_them(tmp_path: Path) -> None:
    backend, calls = noted(tmp_path)
    backend.scratch("a/b/file")
    assert calls == [
        "make_directory a",
        f"sync_directory {tmp_path.name}",
        "make_directory b",
        "sync_directory a",
    ]


def test_directories_that_another_process_made_are_made_durable_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    backend, calls = noted(tmp_path)
    backend.scratch("a/b/file")
    backend.scratch("a/b/other")
    assert calls == [f"sync_directory {tmp_path.name}", "sync_directory a"]


def test_the_names_of_a_root_that_is_there_are_made_durable_once(tmp_path: Path) -> None:
    """A run that was killed may have made it, and not come to that."""
    posix = Noted()
    backend = LocalBackend(tmp_path, posix)
    backend.scratch("file")
    backend.scratch("other")
    assert posix.calls == [f"sync_directory {parent.name}" for parent in tmp_path.parents]
    denied = Noted("sync_directory", PermissionError(errno.EACCES, "denied"))
    LocalBackend(tmp_path, denied).scratch("file")


def test_a_root_is_made_with_its_parents(tmp_path: Path) -> None:
    posix = Noted()
    backend = LocalBackend(tmp_path / "deep" / "er", posix)
    backend.put_bytes("file", b"x")
    assert backend.read("file") == b"x"
    above = [f"sync_directory {parent.name}" for parent in tmp_path.parents]
    assert posix.calls[: len(above) + 4] == [
        *above,
        "make_directory deep",
        f"sync_directory {tmp_path.name}",
        "make_directory er",
        "sync_directory deep",
    ]


@pytest.mark.parametrize("stopped_in", ["write", "sync_file", "replace", "link"])
def test_an_interrupted_writer_leaves_the_old_file_and_no_other(
    tmp_path: Path, writer: Callable[[LocalBackend, str, bytes], Any], stopped_in: str
) -> None:
    LocalBackend(tmp_path).put_bytes("file", b"old")
    stopped = LocalBackend(tmp_path, Noted(stopped_in, KeyboardInterrupt()))
    if stopped_in in STEPS[writer]:
        with pytest.raises(KeyboardInterrupt):
            writer(stopped, "file", b"new")
        assert (tmp_path / "file").read_bytes() == b"old"
    left = [name for name in files(tmp_path) if is_temporary(name)]
    # Of `put_file`, the caller removes the file that it wrote: `Directory.writing`.
    assert not left or writer is written


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full; free some space"),
        (errno.EDQUOT, "has reached its quota; free some space"),
        (errno.EROFS, "is denied (Read-only file system)"),
        (errno.EACCES, "is denied (Permission denied)"),
        (errno.EPERM, "is denied (Operation not permitted)"),
        (errno.EIO, "cannot be used (Input/output error)"),
        (errno.ESTALE, "cannot be used (Stale file handle)"),
    ],
)
@pytest.mark.parametrize("step", ["write", "sync_file", "replace", "link", "sync_directory"])
def test_what_the_system_refuses_is_one_sentence(
    tmp_path: Path,
    writer: Callable[[LocalBackend, str, bytes], Any],
    number: int,
    words: str,
    step: str,
) -> None:
    posix = Noted(step, OSError(number, os.strerror(number), str(tmp_path / "file")))
    words = rf"^storage: .*{re.escape(str(tmp_path))}.*{re.escape(words)}.*run again"
    backend = LocalBackend(tmp_path, posix)
    if step not in STEPS[writer]:
        writer(backend, "file", b"x")
        return
    with pytest.raises(StorageError, match=words):
        writer(backend, "file", b"x")
    assert not any(is_temporary(name) for name in files(tmp_path))


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_links_is_named(tmp_path: Path, number: int) -> None:
    backend = LocalBackend(tmp_path, Noted("link", OSError(number, os.strerror(number))))
    with pytest.raises(StorageError, match="no hard links"):
        backend.create("file", b"x")
    assert files(tmp_path) == []


def test_a_root_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file.*cannot be used"):
        LocalBackend(tmp_path / "file" / "storage").put_bytes("a", b"")


def test_a_listing_that_fails_is_one_sentence(tmp_path: Path) -> None:
    class Denied(Posix):
        def files(self, directory: Path) -> Iterator[Any]:
            raise PermissionError(errno.EACCES, "Permission denied", str(directory))

    with pytest.raises(StorageError, match="is denied"):
        list(LocalBackend(tmp_path, Denied()).entries(""))


def test_what_was_fetched_stays_when_the_file_is_replaced_or_removed(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "storage")
    backend.put_bytes("file", b"old")
    backend.fetch("file", tmp_path / "copy")
    backend.put_bytes("file", b"new")
    assert (tmp_path / "copy").read_bytes() == b"old"
    backend.delete("file")
    assert (tmp_path / "copy").read_bytes() == b"old"


def test_nothing_is_deleted_through_a_link_though_it_is_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    backend = LocalBackend(tmp_path / "storage")
    backend.put_bytes("file", b"")
    (tmp_path / "storage" / "link").symlink_to(tmp_path / "elsewhere")
    backend.put_bytes("link/precious", b"x")
    for call in (backend.delete, lambda key: backend.remove([key])):
        with pytest.raises(StorageError, match=r"link/precious is reached through a symbolic link"):
            call("link/precious")
    assert backend.read("link/precious") == b"x"
    assert files(tmp_path / "elsewhere") == ["precious"]


def test_the_file_that_a_relative_link_leads_to_is_fetched(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "storage")
    backend.put_bytes("there/file", b"x")
    (tmp_path / "storage" / "link").symlink_to("there/file")
    (tmp_path / "elsewhere").mkdir()
    backend.fetch("link", tmp_path / "elsewhere" / "copy")
    assert (tmp_path / "elsewhere" / "copy").read_bytes() == b"x"


def test_what_lies_on_another_file_system_is_linked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link", str(source), None, str(target))

    backend = LocalBackend(tmp_path)
    backend.put_bytes("file", b"x")
    monkeypatch.setattr(os, "link", other)
    backend.fetch("file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"x"


def test_files_are_opened_where_they_are(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_bytes("file", b"x")
    descriptor = backend.open_copy("file")
    try:
        assert os.fstat(descriptor).st_ino == (tmp_path / "file").stat().st_ino
    finally:
        os.close(descriptor)
    for root in (tmp_path, tmp_path / "not" / "made"):
        free = LocalBackend(root).free_bytes()
        assert free is not None
        assert free > 0


def test_a_backend_pickles(tmp_path: Path) -> None:
    LocalBackend(tmp_path).put_bytes("a/b", b"x")
    assert pickle.loads(pickle.dumps(LocalBackend(tmp_path))).read("a/b") == b"x"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_full_disk_keeps_what_is_there(small_disk: Path) -> None:
    backend = LocalBackend(small_disk / "storage")
    backend.put_bytes("mark", b"done")
    for publish in (backend.put_bytes, backend.create):
        with pytest.raises(StorageError, match=f"disk of {small_disk}.* is full.*run again"):
            publish("data", bytes(2 << 20))
    assert files(small_disk) == ["storage/mark"]
    with pytest.raises(StorageError, match="is full"):
        backend.put_bytes("mark", bytes(2 << 20))
    assert backend.read("mark") == b"done"
    backend.put_bytes("data", b"fits")


def test_a_read_only_disk_can_be_read(small_disk: Path) -> None:
    backend = LocalBackend(small_disk / "storage")
    backend.put_bytes("a/mark", b"done")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    other = LocalBackend(small_disk / "storage")
    assert other.read("a/mark") == b"done"
    assert [entry.key for entry in other.entries("")] == ["a/mark"]
    for publish in (other.put_bytes, other.create):
        with pytest.raises(StorageError, match=r"is denied .Read-only file system"):
            publish("a/data", b"x")
    with pytest.raises(StorageError, match=r"is denied .Read-only file system"):
        other.delete("a/mark")
