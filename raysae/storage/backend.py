"""What a storage has to be able to do, whatever it lies on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """What a listing tells of a file.

    Attributes:
        key: Its name below the root.
        size: Bytes.
        modified: When it was written, in seconds by the storage's clock, not this machine's.
    """

    key: str
    size: int
    modified: float


class Upload(NamedTuple):
    """An upload in parts that was begun and neither completed nor given up.

    Attributes:
        key: What it would become, below the storage's root.
        upload_id: The store's name for it.
        begun: When it was begun, in seconds by the store's clock.
        size: Bytes of the parts that have arrived.
    """

    key: str
    upload_id: str
    begun: float
    size: int


class Backend(Protocol):
    """Files below a root, by keys with forward slashes.

    A key's content appears whole or not at all, replaces what was there in one step, and survives a
    loss of power once the call has returned.

    Attributes:
        is_local: Whether `open_copy` opens the file itself, where it lies.
    """

    is_local: bool

    def __str__(self) -> str:
        """The root, as the user would write it."""
        ...

    def describe(self, key: str) -> str:
        """Return a key's path or URI, for messages."""
        ...

    def scratch(self, key: str) -> Path:
        """Return a fresh local path where a file for `key` can be written before `put_file`."""
        ...

    def put_file(self, local: Path, key: str) -> None:
        """Publish a finished local file, as `scratch` named it; it is gone afterwards."""
        ...

    def put_bytes(self, key: str, data: bytes) -> None:
        """Publish some bytes."""
        ...

    def copy(self, source: str, key: str) -> None:
        """Publish a file under a second key.

        Raises:
            FileNotFoundError: It is not there.
        """
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Publish some bytes unless the key is taken; return whether they are what it holds."""
        ...

    def settle(self, prefix: str) -> None:
        """See to it that the files in a directory survive a loss of power, whoever wrote them.

        A file can be seen a moment before that is so; who relies on another process' files asks.
        """
        ...

    def read(self, key: str) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: It is not there.
        """
        ...

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """Yield files' bytes in order, None where there is no file."""
        ...

    def size(self, key: str) -> int | None:
        """Return a file's bytes' number; None if it is not there."""
        ...

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Return the sizes of many files, with as few requests as that takes."""
        ...

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield all files below a directory, in order of their keys."""
        ...

    def directories(self, prefix: str) -> list[str]:
        """Return the names of the directories in one, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove a file, if it is there, but not through a symbolic link; as `remove`."""
        ...

    def remove(self, keys: Sequence[str]) -> None:
        """Remove many files, those that are there, but none through a symbolic link.

        Raises:
            StorageError: It was denied, or a directory on the way is a link; some may be gone.
        """
        ...

    def is_inside(self, prefix: str) -> bool:
        """Whether a directory lies below the root itself, not behind a symbolic link."""
        ...

    def prune(self, prefix: str) -> None:
        """Remove what directories without any file there are in a directory, and itself."""
        ...

    def unfinished_uploads(self, prefix: str) -> Iterator[Upload]:
        """Yield what was sent in parts and never ended, if the store keeps such parts."""
        ...

    def abort_upload(self, upload: Upload) -> None:
        """Give an unfinished upload up."""
        ...

    def stream(self, key: str) -> Iterator[bytes | memoryview]:
        """Yield a file's bytes in pieces, each of them good until the next one is asked for.

        Raises:
            FileNotFoundError: It is not there.
        """
        ...

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return parts of a file, from a first byte up to the one after the last.

        Raises:
            FileNotFoundError: It is not there.
            StorageError: It ends before a part does.
        """
        ...

    def open_copy(self, key: str) -> int:
        """Return a descriptor, opened for reading, of the file or of a copy on this machine.

        Only for files that never change under their name: a copy is used again.

        Raises:
            FileNotFoundError: It is not there.
        """
        ...

    def fetch(self, key: str, target: Path) -> None:
        """Copy a file to a new local path, where it must not be written to.

        Raises:
            FileNotFoundError: It is not there.
        """
        ...

    def free_bytes(self) -> int | None:
        """Return the bytes that can still be written; None if there is no bound to be known."""
        ...
