"""Rows of one corpus file, local or remote, of any format, without the rest of it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.corpora.arrow_rows import read_arrow
from raysae.corpora.conform import conform
from raysae.corpora.files import CorpusFile
from raysae.corpora.formats import format_of
from raysae.corpora.hub import fetch_hub
from raysae.corpora.json_rows import bytes_to_read, read_json
from raysae.corpora.local_files import unchanged_local
from raysae.corpora.locations import HUB_SCHEME
from raysae.corpora.objects import fetch_object, unchanged_object
from raysae.corpora.ranged import Fetch, RangedFile

WHOLE_GROUPS_BYTES = 32 * 2**20
"""Row groups of a remote file are fetched at once, all columns in a few requests, up to this."""

BUFFER_BYTES = 8 * 2**20
"""Larger ones are fetched column by column in pieces of this size."""

ARROW_BUFFER_BYTES = 2**20
"""So much is fetched at least of a remote Arrow file: its schema, and what leads to a batch."""

LOCAL_BUFFER_BYTES = 2**17
"""So much is read at least of a local file."""


def fetcher(uri: str) -> Fetch:
    """Return what reads ranges of a remote file."""
    return fetch_hub(uri) if uri.startswith(f"{HUB_SCHEME}://") else fetch_object(uri)


def open_local(path: Path | str) -> io.BufferedReader:
    """Open a local file to be read from some place onwards."""
    return io.BufferedReader(io.FileIO(path), LOCAL_BUFFER_BYTES)


def buffered(handle: RangedFile, size: int = BUFFER_BYTES) -> BinaryIO:
    """Return a remote file to be read from some place onwards, in pieces of so many bytes."""
    return cast("BinaryIO", io.BufferedReader(handle, size))


def read_rows(
    file: CorpusFile, start: int, stop: int, schema: pa.Schema, rows_at_once: int
) -> Iterator[pa.RecordBatch]:
    """Read some rows of a file.

    Args:
        file: The file.
        start: First row in the file.
        stop: One past the last row.
        schema: Columns and types of the result.
        rows_at_once: Rows decoded at a time.

    Raises:
        DataError: The file is another than when the snapshot was taken.
        OSError: It cannot be read.
        pa.ArrowException: It is damaged.
    """
    kind, rows = format_of(file.name), range(start, stop)
    with _opened(file) as source:
        if kind == "Parquet":
            with _open_parquet(source, start, stop, schema.names) as parquet:
                yield from read_range(parquet, start, stop, schema, rows_at_once)
        elif kind == "Arrow":
            with _open_arrow(source) as arrow:
                yield from read_arrow(arrow, file.places, rows, schema, rows_at_once)
        else:
            with _open_lines(source, file, rows) as lines:
                yield from read_json(lines, file.places, rows, schema, rows_at_once)


@contextmanager
def _opened(file: CorpusFile) -> Iterator[Path | RangedFile]:
    """Give what a file is read from, and see that it is the snapshot's."""
    if file.is_local:
        with unchanged_local(file) as path:
            yield path
    elif file.uri.startswith(f"{HUB_SCHEME}://"):
        yield RangedFile(file.size, fetch_hub(file.uri))
    else:
        with unchanged_object(file) as fetch:
            yield RangedFile(file.size, fetch)


def _open_arrow(source: Path | RangedFile) -> pa.NativeFile:
    if isinstance(source, Path):
        return pa.memory_map(str(source))
    return pa.PythonFile(buffered(source, ARROW_BUFFER_BYTES), "r")


def _open_lines(source: Path | RangedFile, file: CorpusFile, rows: range) -> BinaryIO:
    """Open a file to read some of its lines: of a remote one no more, if they are few."""
    if isinstance(source, Path):
        return open_local(source)
    needed = bytes_to_read(file.places, rows, file.size)
    return buffered(source, min(max(1, needed), BUFFER_BYTES))


def _open_parquet(
    source: Path | RangedFile, start: int, stop: int, columns: Sequence[str]
) -> pq.ParquetFile:
    """Open a Parquet file to read some of its rows and columns.

    For a remote file a row group that is small is worth one or two requests for all its columns
    together (`pre_buffer`); a large one, which may hold gigabytes of images, is read in pieces, so
    that memory stays bounded and what follows the last row is not fetched. No cache of fsspec's
    lies between: columns are decoded in turns, which makes its single window jump and fetch again.
    """
    if isinstance(source, Path):
        return pq.ParquetFile(source)
    metadata = pq.read_metadata(source)
    groups = row_groups(metadata, start, stop)[0]
    if _compressed_bytes(metadata, groups, columns) <= WHOLE_GROUPS_BYTES:
        return pq.ParquetFile(source, metadata=metadata, pre_buffer=True)
    return pq.ParquetFile(source, metadata=metadata, buffer_size=BUFFER_BYTES)


def _compressed_bytes(
    metadata: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str]
) -> int:
    """Return how many bytes of the file some columns of some row groups take."""
    wanted = set(columns)
    return sum(
        column.total_compressed_size
        for group in groups
        for column in map(metadata.row_group(group).column, range(metadata.num_columns))
        if column.path_in_schema.split(".", 1)[0] in wanted
    )


def row_groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that hold any of the rows, and the first row of the first of them."""
    groups: list[int] = []
    first_row = row = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < stop and row + rows > start:
            first_row = first_row if groups else row
            groups.append(group)
        row += rows
    return groups, first_row


def read_range(
    file: pq.ParquetFile, start: int, stop: int, schema: pa.Schema, rows_at_once: int
) -> Iterator[pa.RecordBatch]:
    """Decode only the row groups that the range touches, and keep only its rows.

    Args:
        file: The file.
        start: First row in the file.
        stop: One past the last row.
        schema: Columns and types of the result.
        rows_at_once: Rows decoded at a time.
    """
    groups, row = row_groups(file.metadata, start, stop)
    present = [name for name in schema.names if name in file.schema_arrow.names]
    for batch in file.iter_batches(rows_at_once, row_groups=groups, columns=present):
        low, high = max(start - row, 0), min(stop - row, batch.num_rows)
        if low < high:
            yield conform(batch.slice(low, high - low), schema)
        row += batch.num_rows
        if row >= stop:
            break
