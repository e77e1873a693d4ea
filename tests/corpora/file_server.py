"""A file server with a coarse and wrong clock, for snapshots of what it holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest

from raysae.corpora import contents, listing, taking
from raysae.corpora.listing import key_of
from raysae.errors import DataError
from raysae.storage.uris import LocalUri
from tests.corpora.rows import parquet, row

CONTENTS = [
    parquet([row(question=f"content {i}", image=b"")], compression="none") for i in range(4)
]


class World:
    """A corpus of one file, a writer, a file server with a coarse and wrong clock, and us.

    Time passes when we look at our clock or sleep; writes happen when they are due.
    """

    def __init__(self, path: Path, tick: float, skew: float, pace: float) -> None:
        self.path = path
        self.tick, self.skew, self.pace = tick, skew, pace
        self.now = 1000.0
        self.due: list[tuple[float, int]] = []
        self.held: set[str] = set()

    def write(self, number: int) -> None:
        """Overwrite the file in place; its stamps are the server's time, cut to its tick."""
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(CONTENTS[number])
        stamp = int((self.now + self.skew) // self.tick * self.tick * 1e9)
        os.utime(self.path, ns=(stamp, stamp))
        self.held.add(self.content())

    def content(self) -> str:
        """Return the SHA-256 of what the file holds now."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and what is due happen in it."""
        until = self.now + seconds
        while self.due and self.due[0][0] <= until:
            self.now, number = self.due.pop(0)
            self.write(number)
        self.now = until

    def monotonic(self) -> float:
        """Return our clock's time, some time after it was asked for."""
        self.pass_time(self.pace)
        return self.now - 500

    def fingerprint(self) -> str | None:
        """Take a snapshot, as a job does; None if it refuses because the file changes.

        Afterwards `held` are the contents that the file had meanwhile.
        """
        self.held = {self.content()}
        try:
            snapshot, *_ = taking.take_snapshot("x", LocalUri(self.path.parent), 0)
        except DataError as error:
            if "changed while the corpus was opened" not in str(error):
                raise
            return None
        return snapshot.files[0].fingerprint


@contextmanager
def world(tick: float, skew: float, pace: float = 0.01) -> Iterator[World]:
    """Remember everything, in a world where only coarse stamps tell of a write."""
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYSAE_CACHE_DIR", f"{directory}/cache")
        (Path(directory) / "corpus").mkdir()
        made = World(Path(directory) / "corpus" / "a.parquet", tick, skew, pace)
        made.write(0)
        patch.setattr(taking, "SOME_FILES", 1)
        patch.setattr(taking, "MANY_FILES", 1)
        for module in (taking, contents):
            clock = SimpleNamespace(monotonic=made.monotonic, sleep=made.pass_time)
            patch.setattr(module, "time", clock)
        for module in (listing, contents):  # this machine's ctime is finer than that server's
            patch.setattr(
                module,
                "local_key",
                lambda path, status: key_of(path, status.st_size, status.st_mtime_ns),
            )
        yield made
