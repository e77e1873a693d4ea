"""What a file's content tells: its hash, its rows and its columns, read by threads."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from io import BufferedReader, BytesIO
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.corpora.arrow_rows import learn_arrow
from raysae.corpora.clients import reason_of
from raysae.corpora.conform import plain
from raysae.corpora.files import below
from raysae.corpora.formats import OTHER_JSON, SUFFIXES, format_of
from raysae.corpora.json_rows import learn_json
from raysae.corpora.learned import Contents, Learned, Schemas
from raysae.corpora.listing import ListedFile, Listing, local_key
from raysae.corpora.parallel import in_order
from raysae.corpora.ranged import RangedFile
from raysae.corpora.reading import buffered, fetcher, open_local
from raysae.errors import DataError

LOCAL_THREADS = 4
"""Enough for the latency of a network file system; more only contend for the interpreter."""

REMOTE_THREADS = 32

FOOTER_BYTES = 64 * 2**10
"""Fetched from the end of a remote file at first; few footers are longer."""

SMALL_FILE_BYTES = 2**20
"""A smaller file is read into memory at once, for its hash and its footer."""


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


def contents_reader(listing: Listing, schemas: Schemas) -> Callable[[ListedFile], Contents]:
    """Return what reads a listed file's rows and schema: of Parquet the end, of others all of it.

    It raises DataError if a file is not of its format or cannot be read.
    """

    def read(file: ListedFile) -> Contents:
        uri = below(listing.root, file.name)
        try:
            with _whole_or_end(uri, file, is_local=listing.is_local) as source:
                return _contents(file.name, source, schemas)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise _unreadable(uri, error) from error

    return read


def _whole_or_end(uri: str, file: ListedFile, *, is_local: bool) -> BinaryIO | pa.NativeFile:
    """Open what has to be read of a file to count its rows."""
    if is_local:
        if format_of(file.name) == "Parquet":
            return pa.OSFile(uri)
        return open_local(uri)
    if format_of(file.name) == "Parquet":
        return _remote_end(uri, file.size)
    return buffered(RangedFile(file.size, fetcher(uri)))


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


def _contents(name: str, source: BinaryIO | pa.NativeFile, schemas: Schemas) -> Contents:
    """Count a file's rows and read its columns; of Parquet the end of the file is enough."""
    kind = format_of(name)
    if kind == "Parquet":
        with pq.ParquetFile(source) as file:
            contents = Contents(file.metadata.num_rows, plain(file.schema_arrow))
    elif kind == "Arrow":
        contents = learn_arrow(pa.PythonFile(source, "r"))
    else:
        contents = learn_json(source)
    return contents._replace(schema=schemas.intern(contents.schema))


def _unreadable(uri: str, error: Exception) -> DataError:
    way_out = "; replace or remove it." if uri.endswith(SUFFIXES) else f". {OTHER_JSON}"
    return DataError(f"{uri} cannot be read as {format_of(uri)} ({reason_of(error)}){way_out}")


def read_all(
    listing: Listing,
    files: Sequence[ListedFile],
    counted: Sequence[Contents | None],
    schemas: Schemas,
    settled_at: float,
) -> list[FileRead]:
    """Learn what there is to know of files, in threads.

    Args:
        listing: Where they are.
        files: Some of it.
        counted: Of each, where it was read already; local ones are read again, in one go with the
            hash.
        schemas: Where schemas are shared.
        settled_at: When the stamps of local files, looked at before, have settled, in
            `time.monotonic()`.

    Raises:
        DataError: The first file, in their order, that cannot be read or changes meanwhile.
    """
    threads = count_threads(listing)
    if listing.is_local:
        return list(in_order(_local_reader(listing, schemas, settled_at), files, threads))
    read = contents_reader(listing, schemas)

    def learn(pair: tuple[ListedFile, Contents | None]) -> FileRead:
        file, contents = pair
        return FileRead(Learned(file.fingerprint, *(contents or read(file))), settled=True)

    return list(in_order(learn, zip(files, counted, strict=True), threads))


def _local_reader(
    listing: Listing, schemas: Schemas, settled_at: float
) -> Callable[[ListedFile], FileRead]:
    """Return what hashes a local file and counts its rows, while it stays as it is."""

    def read(file: ListedFile) -> FileRead:
        path = below(listing.root, file.name)
        settled = time.monotonic() >= settled_at
        try:
            with open_local(path) as data:
                before = os.fstat(data.fileno())
                fingerprint, contents = _hash_and_contents(file, data, before.st_size, schemas)
                after = os.fstat(data.fileno())
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise _unreadable(path, error) from error
        changed = any(
            (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns)
            for status in (before, after)
        )
        if changed:
            raise changing(path)
        same = local_key(path, before) == local_key(path, after) == file.key
        return FileRead(Learned(fingerprint, *contents), settled and same)

    return read


def _hash_and_contents(
    file: ListedFile, data: BufferedReader, size: int, schemas: Schemas
) -> tuple[str, Contents]:
    if size <= SMALL_FILE_BYTES:
        content = data.read()
        is_parquet = format_of(file.name) == "Parquet"
        source = pa.BufferReader(content) if is_parquet else BytesIO(content)
        return hashlib.sha256(content).hexdigest(), _contents(file.name, source, schemas)
    fingerprint = hashlib.file_digest(data, "sha256").hexdigest()
    data.seek(0)
    return fingerprint, _contents(file.name, data, schemas)


def changing(uri: str) -> DataError:
    """Return the error of a file that is written to while a job opens it."""
    return DataError(
        f"{uri} changed while the corpus was opened; run the job again when nothing writes to it."
    )
