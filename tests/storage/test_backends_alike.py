"""Whatever is done to a directory and to an object store, both hold and say the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from raysae.storage.backend import Backend
from raysae.storage.local import LocalBackend
from tests.storage.fake_store import Store, fake_backend

KEYS = st.sampled_from(
    ["x", "a/x", "a/y", "a-b", "a.d/x", "b/c/d/z", "b/c/z", "ü/ä b", "shards/0001", "shards/0002"]
)
PREFIXES = st.sampled_from(["", "a", "b", "b/c", "b/c/d", "ü", "x", "a/x", "none", "shards", "s"])
DATA = st.binary(max_size=20)


class Alike(RuleBasedStateMachine):
    """Does everything twice, and to a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp())
        self.local = LocalBackend(self.place / "storage")
        self.remote = fake_backend(Store())
        self.twin: dict[str, bytes] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def both(self, name: str, *arguments: Any) -> Any:
        """Call a method of both, and return what both said."""
        answers = [_answer(backend, name, *arguments) for backend in (self.local, self.remote)]
        assert answers[0] == answers[1]
        return answers[0]

    @rule(key=KEYS, data=DATA)
    def put_bytes(self, key: str, data: bytes) -> None:
        self.both("put_bytes", key, data)
        self.twin[key] = data

    @rule(key=KEYS, data=DATA)
    def put_file(self, key: str, data: bytes) -> None:
        for backend in (self.local, self.remote):
            path = backend.scratch(key)
            path.write_bytes(data)
            backend.put_file(path, key)
            assert not path.exists()
        self.twin[key] = data

    @rule(key=KEYS, data=DATA)
    def create(self, key: str, data: bytes) -> None:
        assert self.both("create", key, data) == (self.twin.get(key, data) == data)
        self.twin.setdefault(key, data)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.both("delete", key)
        self.twin.pop(key, None)

    @rule(keys=st.lists(KEYS, max_size=5))
    def remove(self, keys: Sequence[str]) -> None:
        self.both("remove", keys)
        for key in keys:
            self.twin.pop(key, None)

    @rule(source=KEYS, key=KEYS)
    def copy(self, source: str, key: str) -> None:
        answer = self.both("copy", source, key)
        assert (answer is FileNotFoundError) == (source not in self.twin)
        if source in self.twin:
            self.twin[key] = self.twin[source]

    @rule(key=KEYS | PREFIXES.filter(bool))
    def read(self, key: str) -> None:
        assert self.both("read", key) == self.twin.get(key, FileNotFoundError)
        assert self.both("size", key) == (len(self.twin[key]) if key in self.twin else None)

    @rule(key=KEYS | PREFIXES.filter(bool))
    def fetch(self, key: str) -> None:
        for backend in (self.local, self.remote):
            target = self.place / "copy"
            answer = _answer(backend, "fetch", key, target)
            assert answer is (None if key in self.twin else FileNotFoundError)
            assert not target.exists() or target.read_bytes() == self.twin[key]
            target.unlink(missing_ok=True)

    @rule(keys=st.lists(KEYS | PREFIXES.filter(bool), max_size=8))
    def look_at_many(self, keys: Sequence[str]) -> None:
        found = [self.twin.get(key) for key in keys]
        assert self.both("read_many", keys) == found
        assert self.both("sizes", keys) == [None if one is None else len(one) for one in found]

    @rule(prefix=PREFIXES)
    def list_directories(self, prefix: str) -> None:
        """Empty directories are nothing that anybody can rely on."""
        self.local.prune("")
        start = f"{prefix}/" if prefix else ""
        below = {key[len(start) :] for key in self.twin if key.startswith(start)}
        expected = sorted({name.split("/")[0] for name in below if "/" in name})
        assert self.both("directories", prefix) == expected

    @rule(prefix=PREFIXES)
    def list_files(self, prefix: str) -> None:
        start = f"{prefix}/" if prefix else ""
        expected = sorted((k, len(d)) for k, d in self.twin.items() if k.startswith(start))
        assert self.both("entries", prefix) == expected

    @invariant()
    def hold_the_same(self) -> None:
        self.list_files("")


def _answer(backend: Backend, name: str, *arguments: Any) -> Any:
    """Return what a method says, or the kind of error that it raises."""
    try:
        answer = getattr(backend, name)(*arguments)
        if name == "entries":
            return [(entry.key, entry.size) for entry in answer]
        return list(answer) if name == "read_many" else answer
    except FileNotFoundError:
        return FileNotFoundError


TestAlike = Alike.TestCase
TestAlike.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
