from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from raysae.errors import SettingsError, StorageError
from raysae.storage import is_temporary, node_cache, temporaries
from raysae.storage.node_cache import (
    BYTES_VARIABLE,
    DIRECTORY_VARIABLE,
    FullDiskError,
    cache_directory,
    open_cached,
)
from raysae.storage.temporaries import TEMPORARY_PREFIX, temporary_name


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The node cache's directory, which does not exist yet."""
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "copies"))
    return tmp_path / "copies"


class Fetcher:
    """Gives some bytes and counts how often it was asked."""

    def __init__(self, data: bytes = b"data") -> None:
        self.data = data
        self.times = 0

    def __call__(self, target: Path) -> None:
        self.times += 1
        target.write_bytes(self.data)


def content(name: str, fetch: Callable[[Path], None], size: int = 4) -> bytes:
    if isinstance(fetch, Fetcher):
        size = len(fetch.data)
    with os.fdopen(open_cached(name, size, fetch), "rb") as file:
        return file.read()


def copies(directory: Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in directory.iterdir() if p.suffix != ".lock"}


def test_an_object_is_fetched_once(directory: Path) -> None:
    fetch = Fetcher()
    for _ in range(3):
        assert content("s3://b/k", fetch) == b"data"
    assert fetch.times == 1
    assert content("s3://b/other", Fetcher(b"other")) == b"other"
    assert sorted(copies(directory).values()) == [4, 5]
    assert directory.stat().st_mode & 0o777 == 0o700


def test_without_a_setting_copies_lie_in_the_temporary_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_directory() == tmp_path / f"raysae-cache-{os.getuid()}"


@pytest.mark.parametrize("error", [FileNotFoundError, StorageError, KeyboardInterrupt])
def test_a_fetch_that_fails_leaves_nothing(directory: Path, error: type[BaseException]) -> None:
    def fetch(target: Path) -> None:
        target.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        open_cached("s3://b/k", 4, fetch)
    assert copies(directory) == {}
    assert content("s3://b/k", Fetcher()) == b"data"


def test_copies_that_were_not_used_for_longest_are_dropped(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BYTES_VARIABLE, "250")
    fetchers = {name: Fetcher(name.encode() * 100) for name in "abc"}
    for age, name in enumerate("ab"):
        content(name, fetchers[name])
        for path in directory.iterdir():
            os.utime(path, (path.stat().st_mtime - 100 + age,) * 2)
    content("a", fetchers["a"])
    content("c", fetchers["c"])
    assert sum(copies(directory).values()) == 200
    for name in "ac":
        content(name, fetchers[name])
    assert [fetchers[name].times for name in "abc"] == [1, 1, 1]
    content("b", fetchers["b"])
    assert fetchers["b"].times == 2


def test_other_files_in_the_directory_stay(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.mkdir(exist_ok=True)
    mine = {"thesis.tar": b"t" * 1000, "a" * 40: b"a", "raysae-notes": b"n"}
    for name, data in mine.items():
        (directory / name).write_bytes(data)
        os.utime(directory / name, (1, 1))
    (directory / f"raysae-{'b' * 40}").mkdir()
    monkeypatch.setenv(BYTES_VARIABLE, "150")
    for name in "cd":
        content(name, Fetcher(name.encode() * 100))
    left = copies(directory)
    assert {name: (directory / name).read_bytes() for name in mine} == mine
    assert sum(size == 100 for size in left.values()) == 1


def test_other_users_copies_stay(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BYTES_VARIABLE, "150")
    content("a", Fetcher(b"a" * 100))
    theirs = copies(directory)
    another = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: another)
    for name in "bcd":
        content(name, Fetcher(name.encode() * 100))
    assert theirs.items() <= copies(directory).items()


def test_a_copy_larger_than_the_bound_can_be_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BYTES_VARIABLE, "10")
    assert content("a", Fetcher(b"x" * 100)) == b"x" * 100
    assert content("b", Fetcher(b"y" * 100)) == b"y" * 100
    assert len(copies(directory)) == 1


def test_a_descriptor_outlives_its_copy(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BYTES_VARIABLE, "10")
    descriptor = open_cached("a", 100, Fetcher(b"x" * 100))
    for path in directory.iterdir():
        os.utime(path, (1, 1))
    content("b", Fetcher(b"y" * 100))
    assert list(copies(directory).values()) == [100]
    with os.fdopen(descriptor, "rb") as file:
        assert file.read() == b"x" * 100


def test_a_copy_from_before_the_machine_stopped_is_not_trusted(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was never synced: after a loss of power it may be short, or hold anything."""
    content("a", Fetcher())
    for path in directory.iterdir():
        if path.suffix != ".lock":
            path.write_bytes(b"da\0\0")
    monkeypatch.setattr(node_cache, "boot_id", lambda: f"{temporaries.boot_id()} another")
    assert content("a", Fetcher()) == b"data"


def test_a_copy_of_another_size_is_not_trusted(directory: Path) -> None:
    content("a", Fetcher())
    (copy,) = copies(directory)
    (directory / copy).write_bytes(b"da")
    assert content("a", Fetcher()) == b"data"
    assert copies(directory) == {copy: 4}


class Disk:
    """A disk of some bytes, for copies alone, on which a fetch fails when they do not fit.

    Args:
        directory: Where copies lie.
        size: Bytes of the disk.
        free: What the system says is free, where it knows no better.
    """

    def __init__(self, directory: Path, size: int, free: int | None = None) -> None:
        self.directory, self.size, self.free = directory, size, free
        self.times = 0

    def usage(self, path: Path) -> SimpleNamespace:
        left = self.size - sum(copies(self.directory).values())
        return SimpleNamespace(free=left if self.free is None else self.free)

    def __call__(self, target: Path) -> None:
        self.times += 1
        target.write_bytes(b"x" * 100)
        if self.size < sum(copies(self.directory).values()):
            raise FullDiskError("the disk is full")


def filled(directory: Path, names: str) -> None:
    """Make copies of 100 bytes, the first of them the oldest."""
    for age, name in enumerate(names):
        before = set(copies(directory)) if directory.exists() else set()
        content(name, Fetcher(name.encode() * 100))
        (new,) = set(copies(directory)) - before
        os.utime(directory / new, (100 + age, 100 + age))


@pytest.mark.parametrize("free", [None, 10**9], ids=["disk", "quota"])
def test_a_full_disk_is_emptied_of_the_oldest_copies(
    directory: Path, monkeypatch: pytest.MonkeyPatch, free: int | None
) -> None:
    filled(directory, "abc")
    disk = Disk(directory, 350, free)
    monkeypatch.setattr(node_cache.shutil, "disk_usage", disk.usage)
    assert content("d", disk, 100) == b"x" * 100
    assert disk.times == 2
    for name, kept in {"a": False, "b": True, "c": True, "d": True}.items():
        fetch = Fetcher(b"x" * 100)
        content(name, fetch)
        assert fetch.times == (not kept), name


def test_a_disk_without_copies_to_drop_is_full(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(directory, "abc")
    disk = Disk(directory, 50)
    monkeypatch.setattr(node_cache.shutil, "disk_usage", disk.usage)
    with pytest.raises(FullDiskError):
        open_cached("d", 100, disk)
    assert disk.times == 2
    assert copies(directory) == {}


def test_a_copy_that_is_dropped_at_once_can_be_read(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may need the room as soon as it sees the copy."""
    replace = Path.replace

    def replace_and_drop(self: Path, target: Path) -> None:
        replace(self, target).unlink()

    monkeypatch.setattr(Path, "replace", replace_and_drop)
    assert content("a", Fetcher()) == b"data"


FETCHER = """
import sys, time
from pathlib import Path
from raysae.storage.node_cache import open_cached
def fetch(target):
    with Path(sys.argv[1]).open("ab") as log:
        log.write(b"x")
    target.write_bytes(b"da")
    print("fetching", flush=True)
    time.sleep(float(sys.argv[2]))
    target.write_bytes(b"data")
open_cached("s3://b/k", 4, fetch)
print("done", flush=True)
"""


def start(log: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCHER, str(log), str(seconds)], stdout=subprocess.PIPE, text=True
    )


def test_processes_share_one_fetch(directory: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    children = [start(log, 0.3) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    for child in children:
        child.communicate()
    assert log.read_bytes() == b"x"
    assert content("s3://b/k", Fetcher(b"othr")) == b"data"


def test_a_killed_fetch_holds_nobody_up_and_is_cleared_away(
    directory: Path, tmp_path: Path
) -> None:
    with start(tmp_path / "log", 60) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "fetching\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert [is_temporary(name) for name in copies(directory)] == [True]
    started = time.monotonic()
    assert content("s3://b/k", Fetcher()) == b"data"
    assert time.monotonic() - started < 30
    assert list(copies(directory).values()) == [4]


def test_unfinished_copies_of_the_living_stay(directory: Path) -> None:
    directory.mkdir()
    mine = directory / temporary_name()
    _, pid, started, token = mine.name.removeprefix(TEMPORARY_PREFIX).split("-")
    foreign = directory / f"{TEMPORARY_PREFIX}00000000-{pid}-{started}-{token}"
    for path in (mine, foreign):
        path.write_bytes(b"half")
    content("a", Fetcher())
    assert mine.exists()
    assert foreign.exists()


def test_a_lock_is_given_back(directory: Path) -> None:
    content("a", Fetcher())
    for path in directory.glob("*.lock"):
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("value", ["64G", "-1", "1.5", "many"])
def test_a_bound_that_is_no_number_is_a_setting(
    directory: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv(BYTES_VARIABLE, value)
    with pytest.raises(SettingsError, match=f"^{BYTES_VARIABLE}: got '{value}'"):
        open_cached("a", 4, Fetcher())


def test_a_directory_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(StorageError, match=f"{tmp_path}/file cannot hold copies.*File exists"):
        open_cached("a", 4, Fetcher())
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match=f"{DIRECTORY_VARIABLE} on every node"):
        open_cached("a", 4, Fetcher())


def test_a_full_disk_that_takes_no_lock_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(
        StorageError, match=rf"{directory} cannot hold .*No space left.*{DIRECTORY_VARIABLE}"
    ):
        open_cached("a", 4, Fetcher())


def test_a_file_system_without_locks_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=rf"{directory} cannot hold copies .*No locks available"):
        open_cached("a", 4, Fetcher())


def test_a_machine_without_a_temporary_directory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    monkeypatch.setattr(node_cache.tempfile, "gettempdir", refuse)
    with pytest.raises(StorageError, match=rf"No usable temporary .*{DIRECTORY_VARIABLE}"):
        open_cached("a", 4, Fetcher())
