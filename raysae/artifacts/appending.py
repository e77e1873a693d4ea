"""A large file, hashed and written by threads, past the system's page cache where it can be."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_BLOCK_BYTES = 8 << 20
"""Bytes that are hashed and written at a time; a multiple of every device's sectors."""

_BLOCKS = 4
"""Blocks in memory: one is filled, one hashed, one written, one in hand."""

APPENDING_BYTES = _BLOCKS * _BLOCK_BYTES
"""Memory that a file takes while it is appended to."""


class _Pending(NamedTuple):
    """A block that is hashed and written."""

    block: npt.NDArray[np.uint8]
    hashed: Future[None]
    written: Future[None]


class AppendedFile:
    """A file of this machine that is appended to, by one thread, until the block is left.

    Its checksum is made meanwhile by a second thread and it is written by a third. With `direct`,
    what is written goes from memory to the disk (O_DIRECT): of a file that is larger than what will
    be read again soon, a copy in the page cache costs twice the time, and drives out what others
    read. Where the file system has no such thing, it is written as any file is.

    Args:
        path: The file; replaced if there is one.
        direct: Whether the page cache is passed by.

    Raises:
        OSError: The file cannot be written, told with its path: by `write` or at the block's end.
    """

    def __init__(self, path: Path, *, direct: bool) -> None:
        self._path = path
        self._file = _open(path, direct=direct)
        self._hash = hashlib.sha256()
        self._free = [_aligned_block() for _ in range(_BLOCKS)]
        self._block = self._free.pop()
        self._filled = 0
        self._handed_over = 0
        self._pending: deque[_Pending] = deque()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="hashing")
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="writing")
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for pool in (self._hashing, self._writing):
                pool.shutdown(cancel_futures=True)
            os.close(self._file)
            self.closed = True

    def write(self, data: ReadableBuffer) -> int:
        """Append bytes, which are copied; return how many."""
        bytes_n = np.frombuffer(memoryview(data), np.uint8)
        start = 0
        while start < len(bytes_n):
            count = min(len(bytes_n) - start, _BLOCK_BYTES - self._filled)
            # numpy lets the other threads work meanwhile, a memoryview would not.
            self._block[self._filled : self._filled + count] = bytes_n[start : start + count]
            self._filled += count
            start += count
            if self._filled == _BLOCK_BYTES:
                self._hand_over()
        return len(bytes_n)

    def tell(self) -> int:
        """Return the bytes so far."""
        return self._handed_over + self._filled

    def flush(self) -> None:
        """Do nothing: what is left is written at the block's end."""

    def close(self) -> None:
        """Do nothing: libraries close what they write to, the block's end closes this."""

    def sha256(self) -> str:
        """Return the checksum of all bytes, after the block."""
        return self._hash.hexdigest()

    def _hand_over(self) -> None:
        """Let a block be hashed and written, and take one that is free."""
        filled_n = self._block[: self._filled]
        hashed = self._hashing.submit(self._hash.update, filled_n)  # type: ignore[arg-type]
        written = self._writing.submit(self._write_all, filled_n, self._handed_over)
        self._pending.append(_Pending(self._block, hashed, written))
        self._handed_over += self._filled
        self._filled = 0
        if not self._free:
            self._settle_oldest()
        self._block = self._free.pop()

    def _settle_oldest(self) -> None:
        oldest = self._pending.popleft()
        oldest.hashed.result()
        oldest.written.result()
        self._free.append(oldest.block)

    def _finish(self) -> None:
        if self._filled:
            self._hand_over()
        while self._pending:
            self._settle_oldest()

    def _write_all(self, bytes_n: npt.NDArray[np.uint8], offset: int) -> None:
        if len(bytes_n) % mmap.PAGESIZE:
            self._write_as_any()  # the file's end, which fills no sector
        done = 0
        while done < len(bytes_n):
            try:
                done += os.pwrite(self._file, bytes_n[done:].data, offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._write_as_any():
                    raise OSError(error.errno, error.strerror, str(self._path)) from error

    def _write_as_any(self) -> bool:
        """Write through the page cache from here on; return whether that is new."""
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        if not flags & _DIRECT:
            return False
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags & ~_DIRECT)
        return True


_DIRECT: int = getattr(os, "O_DIRECT", 0)
"""Zero on systems that lack it."""


def _open(path: Path, *, direct: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    if direct:
        try:
            return os.open(path, flags | _DIRECT, 0o666)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    return os.open(path, flags, 0o666)


def _aligned_block() -> npt.NDArray[np.uint8]:
    """Return memory that begins at a page's start, as O_DIRECT needs it."""
    return np.frombuffer(mmap.mmap(-1, _BLOCK_BYTES), np.uint8)
