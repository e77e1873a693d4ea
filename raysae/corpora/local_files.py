"""Local corpus files that must stay as they were when the snapshot was taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from raysae.corpora.files import CorpusFile, changed

REMEMBERED_FILES = 2**16
"""Files whose hashes a process keeps."""


@contextmanager
def unchanged_local(file: CorpusFile) -> Iterator[Path]:
    """Give the path of a file whose content is that of the snapshot, before and afterwards.

    Its size and the time of its last write say so. A file with another time is hashed, once in each
    process: a node may have a copy of its own, as it has of the corpora shipped with the package.

    Raises:
        DataError: The file is another than when the snapshot was taken.
        OSError: It is gone or cannot be read.
    """
    path = Path(file.uri)
    before = _stamps(path)
    if before != (file.size, file.mtime_ns) and not _is_copy(file, *before):
        raise changed(file.uri)
    try:
        yield path
    except (pa.ArrowException, OSError) as error:
        if _stamps(path) != before:
            raise changed(file.uri) from error
        raise
    if _stamps(path) != before:
        raise changed(file.uri)


def _stamps(path: Path) -> tuple[int, int]:
    """Return what every write changes: the size in bytes and the time in nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _is_copy(file: CorpusFile, size: int, mtime_ns: int) -> bool:
    """Whether a file written at another time has the same content."""
    return size == file.size and _sha256(file.uri, size, mtime_ns) == file.fingerprint


@lru_cache(maxsize=REMEMBERED_FILES)
def _sha256(path: str, _size: int, _mtime_ns: int) -> str:
    """Hash a file that has these stamps."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
