"""A directory of a storage: what every other package reads and writes artifacts through."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysae.storage.backend import Backend, Entry
from raysae.storage.checksums import fits_its_name, other_bytes
from raysae.storage.documents import parse_json, to_json
from raysae.storage.node_cache import full_cache, open_cached
from raysae.storage.scratch import FULL, finished_or_gone, link_or_copy
from raysae.storage.temporaries import temporary_name
from raysae.storage.uris import check_name


@dataclass(frozen=True)
class Directory:
    """A directory below a storage's root, on a file system or in an object store.

    Names are those of files below it, with forward slashes; every method refuses names that lead
    out of it. It pickles, so it can be sent to actors.

    Attributes:
        backend: What the storage lies on.
        path: The directory's own name below the root; empty for the root.
    """

    backend: Backend
    path: str = ""

    def __str__(self) -> str:
        return self.backend.describe(self.path) if self.path else str(self.backend)

    def __truediv__(self, name: str) -> Directory:
        """Return a directory below this one."""
        return Directory(self.backend, self.key(name))

    def key(self, name: str) -> str:
        """Return a file's name below the storage's root.

        Raises:
            StorageError: It could lead out of the storage.
        """
        check_name(name)
        return f"{self.path}/{name}" if self.path else name

    def describe(self, name: str) -> str:
        """Return a file's path or URI, for messages and results."""
        return self.backend.describe(self.key(name))

    # -- writing

    def scratch(self, name: str) -> Path:
        """Return a fresh local path in which to write a file that `put_file` publishes."""
        return self.backend.scratch(self.key(name))

    def put_file(self, local: Path, name: str) -> None:
        """Publish a finished file from `scratch`, which is gone afterwards."""
        self.backend.put_file(local, self.key(name))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a local path to write a file at, and publish it unless an exception is raised."""
        with finished_or_gone(self.scratch(name)) as local:
            yield local
            self.put_file(local, name)

    def upload(self, local: Path, name: str) -> None:
        """Publish a copy of a finished local file, wherever that lies."""
        with self.writing(name) as copy:
            link_or_copy(local, copy)

    def copy_to(self, name: str, target: Directory) -> None:
        """Publish a file under the same name in another directory of this storage.

        Raises:
            FileNotFoundError: It is not there.
        """
        self.backend.copy(self.key(name), target.key(name))

    def put_bytes(self, name: str, data: bytes) -> None:
        """Publish some bytes, whole or not at all."""
        self.backend.put_bytes(self.key(name), data)

    def put_json(self, name: str, value: Any) -> None:
        """Publish a value as JSON, see `to_json`."""
        self.put_bytes(name, to_json(value))

    def create(self, name: str, data: bytes) -> bool:
        """Publish some bytes under a name that must be free; False if it holds other ones."""
        return self.backend.create(self.key(name), data)

    def settle(self) -> None:
        """See to it that the files in it survive a loss of power, whoever wrote them."""
        self.backend.settle(self.path)

    def delete(self, name: str) -> None:
        """Remove a file, if it is there, but not through a symbolic link; as `remove`."""
        self.backend.delete(self.key(name))

    def remove(self, names: Sequence[str]) -> None:
        """Remove many files, those that are there, but none through a symbolic link.

        Raises:
            StorageError: It was denied, or a directory on the way is a link; some may be gone.
        """
        self.backend.remove([self.key(name) for name in names])

    def prune(self) -> None:
        """Remove the directories without any file in here, and this one if it is such."""
        self.backend.prune(self.path)

    # -- reading

    def read_bytes(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: It is not there.
        """
        return self.backend.read(self.key(name))

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object.

        Raises:
            FileNotFoundError: It is not there.
            DataError: It holds something else.
        """
        return parse_json(self.read_bytes(name), self.describe(name))

    def read_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        """Yield files' bytes in order, None where there is no file."""
        return self.backend.read_many([self.key(name) for name in names])

    def map(self, name: str) -> pa.Buffer:
        """Map a file into memory: of an object, a copy that this machine keeps.

        Only for files that never change under their name.

        Raises:
            FileNotFoundError: It is not there.
        """
        return _mapped(self.backend.open_copy(self.key(name)))

    def map_made(self, name: str, what: str, make: Callable[[pa.Buffer, Path], None]) -> pa.Buffer:
        """Map what is made of a file, which this machine keeps as it keeps copies of objects.

        Only for files that never change under their name.

        Args:
            name: The file.
            what: Names what is made; another thing needs another name.
            make: Makes it: of the mapped file, at a new local path.

        Raises:
            FileNotFoundError: It is not there.
            StorageError: It holds other bytes than the checksum in its name says.
        """

        def write(path: Path) -> None:
            # Beside what is made of it, where another process removes it if this one dies, and not
            # as a copy that is kept: what is made takes its place.
            original = path.with_name(temporary_name())
            try:
                self.fetch(name, original)
                # Of a local file nobody has asked yet, and what is made of it is kept for long.
                if self.is_local and not fits_its_name(original, name):
                    raise other_bytes(self.describe(name))
                make(_mapped(os.open(original, os.O_RDONLY)), path)
            except OSError as error:
                if error.errno in FULL:
                    raise full_cache(path, error.errno) from error
                raise
            finally:
                original.unlink(missing_ok=True)

        return _mapped(open_cached(f"{self.describe(name)}\0{what}", None, write))

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a file, from a first byte up to the one after the last.

        Raises:
            FileNotFoundError: It is not there.
            StorageError: It ends before a part does.
        """
        return self.backend.read_ranges(self.key(name), ranges)

    @property
    def is_local(self) -> bool:
        """Whether files are mapped where they lie, and not copies of them."""
        return self.backend.is_local

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to a new local path, where it must not be written to.

        Raises:
            FileNotFoundError: It is not there.
        """
        self.backend.fetch(self.key(name), target)

    @contextmanager
    def fetched(self, names: Sequence[str]) -> Iterator[Path]:
        """Give a local directory with copies of some files, for as long as the block lasts.

        Raises:
            FileNotFoundError: One of them is not there.
        """
        with tempfile.TemporaryDirectory(prefix="raysae-") as directory:
            for name in names:
                target = Path(directory) / check_name(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                self.fetch(name, target)
            yield Path(directory)

    def stream(self, name: str) -> Iterator[bytes | memoryview]:
        """Yield a file's bytes in pieces, each of them good until the next one is asked for.

        Raises:
            FileNotFoundError: It is not there.
        """
        return self.backend.stream(self.key(name))

    # -- looking

    def size(self, name: str) -> int | None:
        """Return a file's bytes' number; None if it is not there."""
        return self.backend.size(self.key(name))

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """Return the sizes of many files, with few requests."""
        return self.backend.sizes([self.key(name) for name in names])

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self.size(name) is not None

    def entries(self) -> Iterator[Entry]:
        """Yield all files below, sorted, with names relative to this directory."""
        start = len(self.path) + 1 if self.path else 0
        for entry in self.backend.entries(self.path):
            yield entry._replace(key=entry.key[start:])

    def directories(self) -> list[str]:
        """Return the names of the directories directly in this one, sorted."""
        return self.backend.directories(self.path)

    def free_bytes(self) -> int | None:
        """Return the bytes that the storage can still take; None if there is no bound."""
        return self.backend.free_bytes()


def _mapped(descriptor: int) -> pa.Buffer:
    """Map what a descriptor is of into memory, and close it."""
    try:
        if os.fstat(descriptor).st_size == 0:
            return pa.py_buffer(b"")
        return pa.py_buffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)
