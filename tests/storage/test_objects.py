"""What an object store does beyond what every storage does (test_backend.py)."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import StorageError
from raysae.storage import Directory, is_temporary, objects, retry
from raysae.storage.node_cache import cache_directory
from raysae.storage.objects import ObjectBackend, _modified
from raysae.storage.retry import ATTEMPTS
from raysae.storage.temporaries import TEMPORARY_PREFIX, temporary_name
from raysae.storage.uris import ObjectUri
from tests.storage.fake_store import FAILED, LOST, URI, Client, Store, fake_backend

Step = Callable[[str, str], Exception | None]


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pauses take no time, and scratch files and copies lie in the test's directory."""
    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


class Requests:
    """Lets the first requests of some kind end otherwise, and counts all."""

    def __init__(self, kind: str = "", times: int = 0, error: Exception | None = None) -> None:
        self.kind, self.times, self.error = kind, times, error
        self.made: list[str] = []

    def __call__(self, name: str, path: str) -> Exception | None:
        self.made.append(name)
        if name != self.kind or not self.times:
            return None
        self.times -= 1
        if self.error is LOST:
            return LOST
        assert self.error is not None
        raise self.error


class Spoiling(Client):
    """Brings other bytes than those that were asked for, the first time."""

    def __init__(self, store: Store, arrives: bytes) -> None:
        super().__init__(store)
        self.arrives = arrives
        self.times = 1

    def get_file(self, rpath: str, lpath: str) -> None:
        super().get_file(rpath, lpath)
        if self.times:
            self.times -= 1
            Path(lpath).write_bytes(self.arrives)


def put_file(backend: ObjectBackend, key: str, data: bytes) -> None:
    local = backend.scratch(key)
    local.write_bytes(data)
    try:
        backend.put_file(local, key)
    finally:
        assert not local.exists()


WRITERS: dict[str, tuple[str, Callable[[ObjectBackend, str, bytes], Any]]] = {
    "put_bytes": ("overwrite", ObjectBackend.put_bytes),
    "create": ("create", ObjectBackend.create),
    "small file": ("overwrite", put_file),
    "part of a file": ("part", put_file),
    "whole file": ("complete", put_file),
}

DATA = {"overwrite": b"small", "create": b"small", "part": b"x" * 100, "complete": b"x" * 100}


@pytest.mark.parametrize("error", [LOST, FAILED], ids=["answer lost", "request lost"])
@pytest.mark.parametrize("times", [1, ATTEMPTS - 1])
@pytest.mark.parametrize("way", sorted(WRITERS))
def test_a_request_that_fails_is_sent_again(way: str, times: int, error: Exception) -> None:
    kind, write = WRITERS[way]
    data = DATA[kind]
    store, requests = Store(), Requests(kind, times, error)
    assert write(fake_backend(store, requests), "a/file", data) in {None, True}
    assert store.objects == {"bucket/pre fix/a/file": data}
    assert requests.made.count(kind) >= 2


@pytest.mark.parametrize("way", sorted(WRITERS))
def test_a_writer_that_fails_leaves_what_was_there(way: str) -> None:
    kind, write = WRITERS[way]
    store = Store({"bucket/pre fix/file": b"old"}) if kind != "create" else Store()
    before = dict(store.objects)
    backend = fake_backend(store, Requests(kind, ATTEMPTS, FAILED))
    with pytest.raises(
        StorageError, match=r"^storage: s3://bucket/pre fix/file cannot be .* 8 tim"
    ):
        write(backend, "file", DATA[kind])
    assert store.objects == before


@pytest.mark.parametrize("way", sorted(WRITERS))
def test_a_denied_request_is_not_repeated(way: str) -> None:
    kind, write = WRITERS[way]
    requests = Requests(kind, ATTEMPTS, PermissionError("Access Denied"))
    with pytest.raises(StorageError, match=r"denied \(Access Denied\); allow it"):
        write(fake_backend(Store(), requests), "file", DATA[kind])
    assert requests.made.count(kind) == 1


READERS: dict[str, tuple[str, Callable[[ObjectBackend], Any], Any]] = {
    "read": ("get", lambda b: b.read("a"), b"1"),
    "size": ("head", lambda b: b.size("a"), 1),
    "sizes": ("list", lambda b: b.sizes(["a", "b", "c", "d"]), [1, 2, None, None]),
    "read_many": ("get many", lambda b: list(b.read_many(["a", "c"])), [b"1", None]),
    "entries": ("list", lambda b: [entry.key for entry in b.entries("")], ["a", "b"]),
    "directories": ("list", lambda b: b.directories(""), []),
    "delete": ("delete", lambda b: b.delete("a"), None),
}


@pytest.mark.parametrize("error", [LOST, FAILED], ids=["answer lost", "request lost"])
@pytest.mark.parametrize("way", sorted(READERS))
def test_a_question_that_fails_is_asked_again(way: str, error: Exception) -> None:
    kind, ask, answer = READERS[way]
    store = Store({"bucket/pre fix/a": b"1", "bucket/pre fix/b": b"22"})
    assert ask(fake_backend(store, Requests(kind, 3, error))) == answer


def test_a_creator_whose_file_was_deleted_at_once_did_not_create_it() -> None:
    """Attempt marks come and go."""
    store = Store({"bucket/pre fix/a": b"other"})

    def delete_before_reading(name: str, path: str) -> None:
        if name == "get":
            store.objects.clear()

    assert not fake_backend(store, delete_before_reading).create("a", b"mine")


def test_a_file_that_arrives_short_is_an_error() -> None:
    class Short(Client):
        def info(self, path: str) -> dict[str, Any]:
            return {**super().info(path), "size": 3}

    backend = ObjectBackend(URI, Short(Store()))
    local = backend.scratch("a")
    local.write_bytes(b"x" * 8)
    with pytest.raises(StorageError, match="3 bytes arrived of 8"):
        backend.put_file(local, "a")


def test_a_copy_in_parts_whose_last_answer_was_lost_is_made_again() -> None:
    class Forgetful(Client):
        """Says then what s3fs says of an upload that it does not find."""

        times = 1

        def cp_file(self, path1: str, path2: str) -> None:
            if self.times:
                self.times -= 1
                raise FileNotFoundError("The specified upload does not exist")
            super().cp_file(path1, path2)

    store = Store({"bucket/pre fix/a": b"data"})
    client = Forgetful(store)
    backend = ObjectBackend(URI, client)
    backend.copy("a", "b")
    assert store.objects["bucket/pre fix/b"] == b"data"
    client.times = ATTEMPTS
    with pytest.raises(StorageError, match=r"a cannot be copied \(the copy is not there"):
        backend.copy("a", "b")
    with pytest.raises(FileNotFoundError):
        backend.copy("c", "b")


def test_an_older_file_of_the_same_size_is_not_taken_for_the_new_one() -> None:
    class Forgetful(Client):
        """Says what s3fs says when the last answer to an upload in parts was lost."""

        times = 1

        def put_file(self, lpath: str, rpath: str, **_: object) -> None:
            if self.times:
                self.times -= 1
                raise FileNotFoundError("The specified upload does not exist")
            super().put_file(lpath, rpath)

    store = Store({"bucket/pre fix/a": b"older"})
    client = Forgetful(store)
    put_file(ObjectBackend(URI, client), "a", b"newer")
    assert store.objects == {"bucket/pre fix/a": b"newer"}
    client.times = ATTEMPTS
    with pytest.raises(StorageError, match=r"a cannot be written \(the upload is not there"):
        put_file(ObjectBackend(URI, client), "a", b"third")


@pytest.mark.parametrize("arrives", [b"", b"hal"])
def test_a_copy_that_arrived_short_is_fetched_again(tmp_path: Path, arrives: bytes) -> None:
    client = Spoiling(Store({"bucket/pre fix/a": b"whole"}), arrives)
    ObjectBackend(URI, client).fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"whole"
    client.times = ATTEMPTS
    with pytest.raises(StorageError, match=f"{len(arrives)} bytes arrived of 5"):
        ObjectBackend(URI, client).fetch("a", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_full_disk_of_this_machine_is_not_the_stores_fault(tmp_path: Path) -> None:
    class Full(Client):
        def get_file(self, rpath: str, lpath: str) -> None:
            Path(lpath).write_bytes(b"half")
            super().get_file(rpath, lpath)
            raise OSError(errno.ENOSPC, "No space left on device")

    requests = Requests()
    backend = ObjectBackend(URI, Full(Store({"bucket/pre fix/a": b"whole"}), requests))
    with pytest.raises(
        StorageError, match=f"disk of {tmp_path}/copy is full.*RAYSAE_NODE_CACHE_BYTES"
    ):
        backend.fetch("a", tmp_path / "copy")
    assert requests.made.count("get") == 1
    assert not (tmp_path / "copy").exists()


def test_azure_is_not_asked_to_copy() -> None:
    """Its answer to that may come before the copy is made."""

    class Azure(Client):
        def cp_file(self, path1: str, path2: str) -> None:
            self.store.objects[path2] = b""

    store = Store({"bucket/a": b"what was made"})
    ObjectBackend(ObjectUri("abfs", "bucket", "", "me.dfs.x.net"), Azure(store)).copy("a", "b")
    assert store.objects == {"bucket/a": b"what was made", "bucket/b": b"what was made"}


def test_many_sizes_are_one_request() -> None:
    store, requests = Store(), Requests()
    names = [f"k/id/shard-{number:05d}" for number in range(500)]
    for name in names[::2]:
        store.objects[f"bucket/pre fix/{name}"] = b"x"
    store.objects["bucket/pre fix/k/id/shards"] = b"x"
    store.objects["bucket/pre fix/k/other/shard-00001"] = b"x"
    assert fake_backend(store, requests).sizes(names) == [1, None] * 250
    assert requests.made == ["list"]


def test_many_are_read_with_few_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "READ_AT_ONCE", 10)
    store, requests = Store(), Requests()
    names = [f"{number:05d}" for number in range(25)]
    for name in names:
        store.objects[f"bucket/pre fix/{name}"] = name.encode()
    assert list(fake_backend(store, requests).read_many(names)) == [n.encode() for n in names]
    assert requests.made == ["get many"] * 3


def test_one_of_many_that_fails_is_read_again() -> None:
    class Broken(Client):
        def cat(self, paths: list[str], on_error: str, **_: Any) -> dict[str, Any]:
            found = super().cat(paths, on_error)
            return {**found, paths[1]: OSError("connection reset")}

    store = Store({f"bucket/pre fix/{name}": name.encode() for name in "abc"})
    assert list(ObjectBackend(URI, Broken(store)).read_many(list("abc"))) == [b"a", b"b", b"c"]


def test_a_client_that_answers_for_one_path_without_its_name(tmp_path: Path) -> None:
    class Bare(Client):
        def cat(self, paths: list[str], on_error: str, **_: Any) -> Any:
            return super().cat(paths, on_error)[paths[0]]

    backend = ObjectBackend(URI, Bare(Store({"bucket/pre fix/a": b"1"})))
    assert list(backend.read_many(["a"])) == [b"1"]


def test_a_client_that_lists_a_file_as_itself() -> None:
    """adlfs does, whatever details it was asked for."""

    class Azure(Client):
        def find(self, path: str, detail: bool, prefix: str = "") -> Any:
            found = super().find(path, detail, prefix)
            return [path] if list(found) == [path] else found

    backend = ObjectBackend(URI, Azure(Store({"bucket/pre fix/a": b"1"})))
    assert list(backend.entries("a")) == []
    assert [entry.key for entry in backend.entries("")] == ["a"]


def test_markers_of_directories_are_no_files() -> None:
    class Marked(Client):
        def find(self, path: str, detail: bool, prefix: str = "") -> dict[str, Any]:
            marker = {"name": f"{path}/a", "type": "directory", "size": 0}
            return {**super().find(path, detail, prefix), f"{path}/a": marker}

    backend = ObjectBackend(URI, Marked(Store({"bucket/pre fix/a/b": b"1"})))
    assert [entry.key for entry in backend.entries("")] == ["a/b"]


@pytest.mark.parametrize(
    ("about", "seconds"),
    [
        ({"LastModified": datetime(1970, 1, 2, tzinfo=UTC)}, 86400.0),
        ({"last_modified": datetime(1970, 1, 2, tzinfo=UTC)}, 86400.0),
        ({"updated": "1970-01-02T00:00:00.500Z"}, 86400.5),
        ({"mtime": 5}, 5.0),
        ({"LastModified": None, "created": 7.5}, 7.5),
    ],
)
def test_times_are_read_as_each_client_tells_them(about: dict[str, Any], seconds: float) -> None:
    assert _modified(about) == seconds


def test_a_time_that_is_not_told_is_unknown() -> None:
    assert math.isnan(_modified({}))


def test_scratch_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    backend = fake_backend(Store())
    mine = backend.scratch("a")
    mine.write_bytes(b"in work")
    machine, pid, started, token = temporary_name().removeprefix(TEMPORARY_PREFIX).split("-")
    dead = mine.with_name(f"{TEMPORARY_PREFIX}{machine}-{pid}-{int(started) - 1}-{token}")
    foreign = mine.with_name(f"{TEMPORARY_PREFIX}00000000-{pid}-{started}-{token}")
    for path in (dead, foreign):
        path.write_bytes(b"left")
    another = backend.scratch("a")
    assert not dead.exists()
    assert mine.exists()
    assert foreign.exists()
    assert another != mine
    assert is_temporary(another.name)
    assert mine.parent.stat().st_mode & 0o777 == 0o700


def test_nobody_knows_how_much_fits() -> None:
    assert fake_backend(Store()).free_bytes() is None


def test_without_a_prefix_a_storage_is_the_bucket() -> None:
    store = Store()
    backend = ObjectBackend(objects.ObjectUri("s3", "bucket", ""), Client(store))
    backend.put_bytes("a/b", b"x")
    assert store.objects == {"bucket/a/b": b"x"}
    assert [entry.key for entry in backend.entries("")] == ["a/b"]
    assert backend.directories("") == ["a"]
    assert backend.describe("a") == "s3://bucket/a"


def test_an_artifact_is_mapped_from_a_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYSAE_NODE_CACHE", str(tmp_path / "copies"))
    requests = Requests()
    directory = Directory(fake_backend(Store({"bucket/pre fix/a": b"data"}), requests))
    assert [directory.map("a").to_pybytes() for _ in range(3)] == [b"data"] * 3
    assert requests.made.count("get") == 1
    assert os.listdir(tmp_path / "copies")  # noqa: PTH208


def test_an_object_that_was_written_again_is_fetched_again() -> None:
    store, requests = Store({"bucket/pre fix/a": b"damaged"}), Requests()
    directory = Directory(fake_backend(store, requests))
    assert directory.map("a").to_pybytes() == b"damaged"
    directory.put_bytes("a", b"whole.!")
    assert [directory.map("a").to_pybytes() for _ in range(2)] == [b"whole.!"] * 2
    assert requests.made.count("get") == 2
    directory.delete("a")
    with pytest.raises(FileNotFoundError):
        directory.map("a")


NAMED = f"shard-00001-{hashlib.sha256(b'whole').hexdigest()[:16]}.arrow"


def test_a_copy_with_other_bytes_than_its_name_says_is_fetched_again(tmp_path: Path) -> None:
    client = Spoiling(Store({f"bucket/pre fix/{NAMED}": b"whole"}), b"whale")
    directory = Directory(ObjectBackend(URI, client))
    assert directory.map(NAMED).to_pybytes() == b"whole"


def test_an_object_with_other_bytes_than_its_name_says_is_an_error(tmp_path: Path) -> None:
    store, requests = Store({f"bucket/pre fix/{NAMED}": b"whale"}), Requests()
    directory = Directory(fake_backend(store, requests))
    said = f"{NAMED} holds other bytes than its name says; delete it and run the job again"
    with pytest.raises(StorageError, match=said):
        directory.map(NAMED)
    assert requests.made.count("get") == objects.FETCHES
    assert not [path for path in cache_directory().iterdir() if path.suffix != ".lock"]
    directory.put_bytes(NAMED, b"whole")
    assert directory.map(NAMED).to_pybytes() == b"whole"


def test_a_full_disk_is_named_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match=r"raysae-scratch-\d+'\); .* with TMPDIR, on every node"):
        fake_backend(Store()).scratch("a")


LARGE = bytes(range(251)) * 4


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of more than 100 bytes are large."""
    monkeypatch.setattr(objects, "PIECE_BYTES", 100)


@pytest.mark.parametrize("size", [100, 101, 200, 1004])
def test_a_large_object_is_copied_in_ranges(small_pieces: None, tmp_path: Path, size: int) -> None:
    requests = Requests()
    backend = fake_backend(Store({"bucket/pre fix/a": LARGE[:size]}), requests)
    backend.fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == LARGE[:size]
    assert requests.made.count("get") == math.ceil(size / 100)


def test_ranges_are_read_at_the_same_time(small_pieces: None, tmp_path: Path) -> None:
    """As many as are allowed, and no more: each waits until the others are under way, too."""
    together = threading.Barrier(objects.RANGES_AT_ONCE, timeout=20)
    at_once, most, lock = 0, 0, threading.Lock()

    def step(name: str, path: str) -> None:
        nonlocal at_once, most
        if name == "get":
            with lock:
                at_once += 1
                most = max(most, at_once)
            together.wait()
            with lock:
                at_once -= 1

    size = 2 * 100 * objects.RANGES_AT_ONCE
    store = Store({"bucket/pre fix/a": (LARGE * 2)[:size]})
    fake_backend(store, step).fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (LARGE * 2)[:size]
    assert most == objects.RANGES_AT_ONCE


def test_a_range_that_fails_is_read_again(small_pieces: None, tmp_path: Path) -> None:
    requests = Requests("get", ATTEMPTS - 1, FAILED)
    fake_backend(Store({"bucket/pre fix/a": LARGE}), requests).fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == LARGE
    requests = Requests("get", 10**6, FAILED)
    with pytest.raises(StorageError, match="8 times"):
        fake_backend(Store({"bucket/pre fix/a": LARGE}), requests).fetch("a", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_ranges_of_an_object_that_changes_meanwhile_are_not_mixed(
    small_pieces: None, tmp_path: Path
) -> None:
    store, other = Store({"bucket/pre fix/a": LARGE}), bytes(reversed(LARGE))

    def step(name: str, path: str) -> None:
        if name == "get":
            store.objects[path] = other

    fake_backend(store, step).fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == other


def test_a_disk_that_takes_a_part_is_given_the_rest(
    small_pieces: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        objects.os, "pwrite", lambda file, data, at: pwrite(file, data[: -(-len(data) // 2)], at)
    )
    fake_backend(Store({"bucket/pre fix/a": LARGE})).fetch("a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == LARGE


def test_a_disk_that_fills_up_between_ranges(
    small_pieces: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(objects.os, "pwrite", full)
    with pytest.raises(StorageError, match=f"disk of {tmp_path}/copy is full"):
        fake_backend(Store({"bucket/pre fix/a": LARGE})).fetch("a", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
