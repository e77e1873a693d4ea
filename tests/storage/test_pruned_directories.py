from __future__ import annotations

import threading
from pathlib import Path

import pytest

from raysae.errors import StorageError
from raysae.storage.local import LocalBackend
from raysae.storage.posix import Posix
from raysae.storage.removal import is_inside, prune, remove_inside


def test_a_file_is_removed_and_one_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a b" / "ü").mkdir(parents=True)
    (tmp_path / "a b" / "ü" / "file").write_bytes(b"x")
    remove_inside(tmp_path, "a b/ü/file")
    remove_inside(tmp_path, "a b/ü/file")
    remove_inside(tmp_path, "none/such/file")
    assert list((tmp_path / "a b" / "ü").iterdir()) == []


def test_a_link_is_removed_and_what_it_leads_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"x")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "link").symlink_to(tmp_path / "precious")
    remove_inside(tmp_path / "s", "link")
    assert (tmp_path / "precious").exists()
    assert not (tmp_path / "s" / "link").is_symlink()


@pytest.mark.parametrize("key", ["link/file", "a/link/file", "a/link/b/file"])
def test_nothing_is_removed_through_a_link(tmp_path: Path, key: str) -> None:
    root, elsewhere = tmp_path / "s", tmp_path / "elsewhere"
    (elsewhere / "b").mkdir(parents=True)
    (root / "a").mkdir(parents=True)
    for name in ("file", "b/file"):
        (elsewhere / name).write_bytes(b"x")
    for name in ("link", "a/link"):
        (root / name).symlink_to(elsewhere)
    assert not is_inside(root, key)
    with pytest.raises(StorageError, match="reached through a symbolic link"):
        remove_inside(root, key)
    prune(root, key.rpartition("/")[0])
    assert (elsewhere / "file").exists()
    assert (elsewhere / "b" / "file").exists()


def test_a_root_that_is_a_link_itself_is_what_the_user_named(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "file").write_bytes(b"x")
    (tmp_path / "s").symlink_to(tmp_path / "disk")
    assert is_inside(tmp_path / "s", "file")
    remove_inside(tmp_path / "s", "file")
    assert not (tmp_path / "disk" / "file").exists()


def test_empty_directories_are_pruned_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty" / "er").mkdir(parents=True)
    (tmp_path / "a" / "full").mkdir()
    (tmp_path / "a" / "full" / "file").write_bytes(b"")
    prune(tmp_path, "a")
    assert sorted(path.name for path in (tmp_path / "a").rglob("*")) == ["file", "full"]
    (tmp_path / "a" / "full" / "file").unlink()
    prune(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


class Raced(Posix):
    """Another process prunes right before a file is written into a new directory."""

    def __init__(self, root: Path, times: int) -> None:
        self.root, self.times = root, times

    def write(self, path: Path, data: bytes) -> None:
        if self.times:
            self.times -= 1
            prune(self.root, "a")
        super().write(path, data)

    def make_directory(self, directory: Path) -> None:
        if self.times and directory.name == "b":
            self.times -= 1
            prune(self.root, "a")
        super().make_directory(directory)


@pytest.mark.parametrize("times", range(5))
def test_a_writer_whose_directory_is_pruned_makes_it_again(tmp_path: Path, times: int) -> None:
    backend = LocalBackend(tmp_path, Raced(tmp_path, times))
    backend.put_bytes("a/b/bytes", b"1")
    assert LocalBackend(tmp_path).read("a/b/bytes") == b"1"
    LocalBackend(tmp_path).remove(["a/b/bytes"])
    backend = LocalBackend(tmp_path, Raced(tmp_path, times))
    assert backend.create("a/b/mark", b"2")
    LocalBackend(tmp_path).remove(["a/b/mark"])
    backend = LocalBackend(tmp_path, Raced(tmp_path, min(times, 1)))
    assert backend.scratch("a/b/c/file").parent.is_dir()


def test_writers_and_a_pruner_at_the_same_time(tmp_path: Path) -> None:
    stop = threading.Event()

    def prune_on() -> None:
        while not stop.wait(0.0005):  # or the writer, which waits for the disk, gets no turn
            prune(tmp_path, "a")

    pruner = threading.Thread(target=prune_on)
    pruner.start()
    try:
        backend = LocalBackend(tmp_path)
        for number in range(30):
            backend.put_bytes(f"a/{number}/b/file", b"x")
            assert backend.create(f"a/{number}/c/mark", b"x")
            backend.remove([f"a/{number}/b/file", f"a/{number}/c/mark"])
    finally:
        stop.set()
        pruner.join()
