"""What a file's content tells: its hash, its rows and its columns, read by threads."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.corpora.clients import reason_of
from raysae.corpora.files import below
from raysae.corpora.learned import Learned, Schemas
from raysae.corpora.listing import ListedFile, Listing, local_key
from raysae.corpora.parallel import in_order
from raysae.corpora.ranged import RangedFile
from raysae.corpora.reading import fetcher
from raysae.errors import DataError

LOCAL_THREADS = 4
"""Enough for the latency of a network file system; more only contend for the interpreter."""

REMOTE_THREADS = 32

FOOTER_BYTES = 64 * 2**10
"""Fetched from the end of a remote file at first; few footers are longer."""

SMALL_FILE_BYTES = 2**20
"""A smaller file is read into memory at once, for its hash and its footer."""


class Footer(NamedTuple):
    """What a Parquet file's end tells.

    Attributes:
        rows: Its rows.
        schema: Its columns, interned.
    """

    rows: int
    schema: pa.Schema


class FileRead(NamedTuple):
    """What was read of a file.

    Attributes:
        learned: It.
        settled: Whether it may be remembered, see `known_files`.
    """

    learned: Learned
    settled: bool


def count_threads(listing: Listing) -> int:
    """Return how many threads may read there at once."""
    return LOCAL_THREADS if listing.is_local else REMOTE_THREADS


def footer_reader(listing: Listing, schemas: Schemas) -> Callable[[ListedFile], Footer]:
    """Return what reads a listed file's rows and schema.

    It raises DataError if a file is no Parquet file or cannot be read.
    """

    def read(file: ListedFile) -> Footer:
        uri = below(listing.root, file.name)
        try:
            source = uri if listing.is_local else _remote_end(uri, file.size)
            return _footer(source, schemas)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(uri, error) from error

    return read


def _remote_end(uri: str, size: int) -> pa.BufferReader:
    """Fetch a file's end: its whole footer, in one request if it is short."""
    handle = RangedFile(size, fetcher(uri))
    handle.seek(max(0, size - FOOTER_BYTES))
    end = handle.read()
    # The last eight bytes: the length of the footer before them, and the format's mark.
    length = int.from_bytes(end[-8:-4], "little") + 8
    if len(end) < length <= size:
        handle.seek(size - length)
        end = handle.read()
    return pa.BufferReader(end)


def _footer(source: str | BufferedReader | pa.BufferReader, schemas: Schemas) -> Footer:
    with pq.ParquetFile(source) as file:
        return Footer(file.metadata.num_rows, schemas.intern(file.schema_arrow))


def _unreadable(uri: str, error: Exception) -> DataError:
    return DataError(f"{uri} cannot be read as Parquet ({reason_of(error)}); replace or remove it.")


def read_all(
    listing: Listing,
    files: Sequence[ListedFile],
    footers: Sequence[Footer | None],
    schemas: Schemas,
    settled_at: float,
) -> list[FileRead]:
    """Learn what there is to know of files, in threads.

    Args:
        listing: Where they are.
        files: Some of it.
        footers: Of each, where it was read already; local ones are read again, in one go with the
            hash.
        schemas: Where schemas are shared.
        settled_at: When the stamps of local files, looked at before, have settled, in
            `time.monotonic()`.

    Raises:
        DataError: The first file, in their order, that is no Parquet file or changes meanwhile.
    """
    threads = count_threads(listing)
    if listing.is_local:
        return list(in_order(_local_reader(listing, schemas, settled_at), files, threads))
    read = footer_reader(listing, schemas)

    def learn(pair: tuple[ListedFile, Footer | None]) -> FileRead:
        file, footer = pair
        footer = footer or read(file)
        return FileRead(Learned(file.fingerprint, footer.rows, footer.schema), settled=True)

    return list(in_order(learn, zip(files, footers, strict=True), threads))


def _local_reader(
    listing: Listing, schemas: Schemas, settled_at: float
) -> Callable[[ListedFile], FileRead]:
    """Return what hashes a local file and reads its footer, while it stays as it is."""

    def read(file: ListedFile) -> FileRead:
        path = below(listing.root, file.name)
        settled = time.monotonic() >= settled_at
        try:
            with Path(path).open("rb") as data:
                before = os.fstat(data.fileno())
                fingerprint, footer = _hash_and_footer(data, before.st_size, schemas)
                after = os.fstat(data.fileno())
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error
        changed = any(
            (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns)
            for status in (before, after)
        )
        if changed:
            raise changing(path)
        same = local_key(path, before) == local_key(path, after) == file.key
        return FileRead(Learned(fingerprint, *footer), settled and same)

    return read


def _hash_and_footer(data: BufferedReader, size: int, schemas: Schemas) -> tuple[str, Footer]:
    if size <= SMALL_FILE_BYTES:
        content = data.read()
        footer = _footer(pa.BufferReader(content), schemas)
        return hashlib.sha256(content).hexdigest(), footer
    fingerprint = hashlib.file_digest(data, "sha256").hexdigest()
    data.seek(0)
    return fingerprint, _footer(data, schemas)


def changing(uri: str) -> DataError:
    """Return the error of a file that is written to while a job opens it."""
    return DataError(
        f"{uri} changed while the corpus was opened; run the job again when nothing writes to it."
    )
