"""Local corpus files that must stay as they were when the snapshot was taken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from raysae.corpora.files import CorpusFile, changed

REMEMBERED_FILES = 2**16
"""Files whose hashes a process keeps."""


class Stamps(NamedTuple):
    """What a write to a file changes.

    Attributes:
        size: Bytes.
        mtime_ns: When it was last written, as programs that copy files set it, in nanoseconds.
        ctime_ns: When it was last written, renamed or given other permissions; nobody can set it.
    """

    size: int
    mtime_ns: int
    ctime_ns: int


@contextmanager
def unchanged_local(file: CorpusFile) -> Iterator[Path]:
    """Give the path of a file whose content is that of the snapshot, before and afterwards.

    Its size and time stamps say so. A file with other stamps is hashed, once in each process: a
    node may have a copy of its own, as it has of the corpora shipped with the package.

    Raises:
        DataError: The file is another than when the snapshot was taken.
        OSError: It is gone or cannot be read.
    """
    path = Path(file.uri)
    before = _stamps(path)
    if before != (file.size, file.mtime_ns, file.ctime_ns) and not _is_copy(file, before):
        raise changed(file.uri)
    try:
        yield path
    except (pa.ArrowException, OSError) as error:
        if _stamps(path) != before:
            raise changed(file.uri) from error
        raise
    after = _stamps(path)
    # Other permissions, or another name for it, are no other content.
    if after[:2] != before[:2] or (after != before and not _is_copy(file, after)):
        raise changed(file.uri)


def _stamps(path: Path) -> Stamps:
    status = path.stat()
    return Stamps(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _is_copy(file: CorpusFile, stamps: Stamps) -> bool:
    """Whether a file with other stamps has the same content."""
    return stamps.size == file.size and _sha256(file.uri, stamps) == file.fingerprint


@lru_cache(maxsize=REMEMBERED_FILES)
def _sha256(path: str, _: Stamps) -> str:
    """Hash a file that has these stamps."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
