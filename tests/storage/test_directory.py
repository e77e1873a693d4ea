from __future__ import annotations

import errno
import hashlib
import math
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from raysae.errors import DataError, StorageError
from raysae.storage import Directory, is_temporary
from raysae.storage.local import LocalBackend
from raysae.storage.node_cache import cache_directory
from tests.storage.fake_store import Store, fake_backend


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(LocalBackend(tmp_path)) / "kind" / "id"


def test_names_are_relative_to_the_directory(directory: Directory, tmp_path: Path) -> None:
    directory.put_bytes("a/b", b"x")
    assert directory.describe("a/b") == str(tmp_path / "kind" / "id" / "a" / "b")
    assert str(directory) == str(tmp_path / "kind" / "id")
    assert str(Directory(directory.backend)) == str(tmp_path)
    assert [entry.key for entry in directory.entries()] == ["a/b"]
    assert [entry.key for entry in (directory / "a").entries()] == ["b"]
    assert [entry.key for entry in Directory(directory.backend).entries()] == ["kind/id/a/b"]
    assert directory.directories() == ["a"]
    assert Directory(directory.backend).directories() == ["kind"]


OUTSIDE = ["../x", "a/../../x", "/etc/passwd", "", "..", "a//b", "a\\b", "a\nb"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused_everywhere(directory: Directory, name: str) -> None:
    calls = [
        lambda: directory / name,
        lambda: directory.scratch(name),
        lambda: directory.put_file(Path("x"), name),
        lambda: directory.put_bytes(name, b""),
        lambda: directory.put_json(name, {}),
        lambda: directory.create(name, b""),
        lambda: directory.delete(name),
        lambda: directory.read_bytes(name),
        lambda: directory.read_json(name),
        lambda: list(directory.read_many([name])),
        lambda: directory.map(name),
        lambda: directory.map_made(name, "x", lambda *_: None),
        lambda: directory.read_ranges(name, [(0, 1)]),
        lambda: directory.fetch(name, Path("x")),
        lambda: directory.size(name),
        lambda: directory.sizes([name]),
        lambda: directory.exists(name),
        lambda: directory.describe(name),
        lambda: directory.writing(name).__enter__(),
        lambda: directory.fetched([name]).__enter__(),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="no name below a storage"):
            call()


def test_a_file_that_is_written_appears_at_the_end(directory: Directory) -> None:
    with directory.writing("a/file") as local:
        local.write_bytes(b"some")
        assert directory.size("a/file") is None
        assert is_temporary(local.name)
    assert directory.read_bytes("a/file") == b"some"
    assert [entry.key for entry in directory.entries()] == ["a/file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_file_whose_writer_fails_never_appears(
    directory: Directory, error: type[BaseException]
) -> None:
    def write() -> None:
        with directory.writing("a/file") as local:
            local.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert list(directory.entries()) == []
    with pytest.raises(FileNotFoundError), directory.writing("a/file"):
        pass


def test_a_file_is_mapped(storage_root: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(100_000)
    storage_root.put_bytes("a/file", data)
    storage_root.put_bytes("a/empty", b"")
    mapped = storage_root.map("a/file")
    assert isinstance(mapped, pa.Buffer)
    storage_root.delete("a/file")
    assert mapped.to_pybytes() == data
    assert storage_root.map("a/empty").size == 0
    with pytest.raises(FileNotFoundError):
        storage_root.map("a/none")


def test_files_are_fetched_for_a_while(storage_root: Directory) -> None:
    for name in ("cfg.json", "sub/weights"):
        storage_root.put_bytes(name, name.encode())
    with storage_root.fetched(["cfg.json", "sub/weights"]) as local:
        assert (local / "cfg.json").read_bytes() == b"cfg.json"
        assert (local / "sub" / "weights").read_bytes() == b"sub/weights"
    assert not local.exists()
    with pytest.raises(FileNotFoundError), storage_root.fetched(["cfg.json", "none"]):
        pass


def test_a_directory_can_be_sent_to_another_process(storage_root: Directory) -> None:
    (storage_root / "kind").put_bytes("a", b"x")
    sent = pickle.loads(pickle.dumps(storage_root / "kind"))
    assert str(sent) == str(storage_root / "kind")
    assert sent.read_bytes("a") == b"x"
    assert sent.create("b", b"y")
    assert storage_root.read_bytes("kind/b") == b"y"


def test_json_is_written_and_read(directory: Directory) -> None:
    directory.put_json("spec.json", {"x": [1.5, None]})
    assert directory.read_json("spec.json") == {"x": [1.5, None]}
    directory.put_bytes("spec.json", b'{"x": ')
    with pytest.raises(DataError, match=r"id/spec\.json is damaged .*delete it and run again"):
        directory.read_json("spec.json")


def test_json_that_is_not_there_is_not_found(directory: Directory) -> None:
    with pytest.raises(FileNotFoundError):
        directory.read_json("none")


def test_local_and_object_storages_hold_the_same_bytes(tmp_path: Path) -> None:
    store = Store()
    local = Directory(LocalBackend(tmp_path)) / "kind"
    remote = Directory(fake_backend(store)) / "kind"
    for directory in (local, remote):
        directory.put_json("a/b.json", {"x": [1.5, math.nan]})
        directory.create("mark", b"1")
        with directory.writing("c") as path:
            path.write_bytes(b"x" * 100)
    assert [(e.key, e.size) for e in local.entries()] == [(e.key, e.size) for e in remote.entries()]
    for entry in local.entries():
        assert local.read_bytes(entry.key) == remote.read_bytes(entry.key)


class Reverser:
    """Makes a file's bytes in reverse, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, content: pa.Buffer, path: Path) -> None:
        self.times += 1
        path.write_bytes(content.to_pybytes()[::-1])


@pytest.mark.parametrize("is_local", [True, False])
def test_what_is_made_of_a_file_is_made_once(tmp_path: Path, is_local: bool) -> None:
    backend = LocalBackend(tmp_path) if is_local else fake_backend(Store())
    directory, reverse = Directory(backend), Reverser()
    assert directory.is_local == is_local
    directory.put_bytes("a", b"abc")
    directory.put_bytes("empty", b"")
    for _ in range(3):
        assert directory.map_made("a", "reverse", reverse).to_pybytes() == b"cba"
    assert reverse.times == 1
    assert directory.map_made("a", "other", reverse).to_pybytes() == b"cba"
    assert directory.map_made("empty", "reverse", reverse).to_pybytes() == b""
    assert reverse.times == 3
    with pytest.raises(FileNotFoundError):
        directory.map_made("none", "reverse", reverse)


@pytest.mark.parametrize("is_local", [True, False])
def test_nothing_is_made_of_other_bytes_than_the_name_says(tmp_path: Path, is_local: bool) -> None:
    """What is made is kept for as long as the machine runs, also when the file is mended."""
    backend = LocalBackend(tmp_path) if is_local else fake_backend(Store())
    directory, reverse = Directory(backend), Reverser()
    name = f"shard-{hashlib.sha256(b'whole').hexdigest()[:16]}.arrow"
    directory.put_bytes(name, b"wrong")
    with pytest.raises(StorageError, match=f"{name} holds other bytes than its name says"):
        directory.map_made(name, "reverse", reverse)
    assert reverse.times == 0
    directory.put_bytes(name, b"whole")
    assert directory.map_made(name, "reverse", reverse).to_pybytes() == b"elohw"


def test_what_something_is_made_of_lies_beside_it(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A full disk is then the one where older copies make room, and nothing outlives a process."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    directory.put_bytes("a", b"abc")
    seen = []

    def make(content: pa.Buffer, path: Path) -> None:
        seen.extend(other.name for other in path.parent.iterdir() if is_temporary(other.name))
        path.write_bytes(content)

    directory.map_made("a", "copy", make)
    assert len(seen) == 1
    assert not [path for path in cache_directory().iterdir() if is_temporary(path.name)]


def test_a_disk_that_is_full_of_what_is_made(directory: Directory) -> None:
    """Older copies make room for it, and where there are none it is said in a sentence."""
    directory.put_bytes("old", b"x" * 100)
    directory.put_bytes("new", b"abc")
    directory.map_made("old", "copy", lambda content, path: path.write_bytes(content))
    failures = [True, False]

    def make(content: pa.Buffer, path: Path) -> None:
        if failures.pop(0):
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(content)

    assert directory.map_made("new", "copy", make).to_pybytes() == b"abc"

    def full(content: pa.Buffer, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"is full; free some space.*RAYSAE_NODE_CACHE_BYTES"):
        directory.map_made("new", "more", full)

    def broken(content: pa.Buffer, path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        directory.map_made("new", "other", broken)
