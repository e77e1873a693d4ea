"""A file of which only ranges are fetched, as Arrow wants files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

Fetch = Callable[[int, int], bytes]
"""Returns a file's bytes from a first offset to one past the last."""


class RangedFile(io.RawIOBase):
    """A file for reading; each read is one request, nothing is kept.

    Args:
        size: Bytes of the file.
        fetch: Where they come from.
    """

    def __init__(self, size: int, fetch: Fetch) -> None:
        super().__init__()
        self._size = size
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the offset of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to an offset and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Fetch bytes from here on.

        Raises:
            OSError: Fewer came than the file has: it was cut short.
        """
        end = self._size if size is None or size < 0 else min(self._position + size, self._size)
        if end <= self._position:
            return b""
        data = self._fetch(self._position, end)
        if len(data) != end - self._position:
            raise OSError(f"{len(data)} bytes came instead of {end - self._position}")
        self._position = end
        return data

    def readinto(self, buffer: Buffer, /) -> int:
        """Fetch bytes into a buffer, as `io.BufferedReader` wants it."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def size(self) -> int:
        """Return the file's bytes."""
        return self._size
