"""Checksum and sync of a file while it is being written, on other cores than the writer's."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_PIECE_BYTES = 4 << 20
_SYNC_BYTES = 64 << 20
"""New bytes after which the system is made to write what it holds back."""

_PAUSE_S = 0.005


class FollowedFile:
    """Follows a file that is appended to, and nothing else, for as long as the block lasts.

    Args:
        path: The file; it may appear later.
        sync: Whether it is sent to the disk, too, so that little is left to sync in the end.
    """

    def __init__(self, path: Path, *, sync: bool) -> None:
        self._path = path
        self._finished = threading.Event()
        self._failure: OSError | None = None
        self._hash = hashlib.sha256()
        self._hashed = 0
        followers = [self._follow, self._sync] if sync else [self._follow]
        self._threads = [threading.Thread(target=one, daemon=True) for one in followers]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finished.set()
        for thread in self._threads:
            thread.join()
        if kind is None and self._failure is not None:
            raise self._failure

    def sha256(self) -> str | None:
        """Return the checksum of all that was written, after the block; None if not all was seen.

        That is so where a file was not only appended to, or cannot be read before it is closed.
        """
        if self._path.stat().st_size != self._hashed:
            return None
        return self._hash.hexdigest()

    def _wait_until_there(self) -> bool:
        while not self._path.exists():
            if self._finished.wait(_PAUSE_S):
                return self._path.exists()
        return True

    def _follow(self) -> None:
        with suppress(OSError):
            self._hash_all()

    def _hash_all(self) -> None:
        if not self._wait_until_there():
            return
        buffer = memoryview(bytearray(_PIECE_BYTES))
        with self._path.open("rb", buffering=0) as file:
            while True:
                last = self._finished.is_set()
                while count := file.readinto(buffer):
                    self._hash.update(buffer[:count])
                    self._hashed += count
                if last:
                    return
                self._finished.wait(_PAUSE_S)

    def _sync(self) -> None:
        try:
            self._sync_all()
        except OSError as error:
            self._failure = error

    def _sync_all(self) -> None:
        if not self._wait_until_there():
            return
        with self._path.open("rb", buffering=0) as file:
            synced = 0
            while not self._finished.wait(_PAUSE_S):
                size = os.fstat(file.fileno()).st_size
                if size - synced >= _SYNC_BYTES:
                    os.fdatasync(file.fileno())
                    synced = size
