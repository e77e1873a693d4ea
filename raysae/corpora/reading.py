"""Rows of one corpus file, local or remote, without the rest of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysae.corpora.files import CorpusFile
from raysae.corpora.hub import fetch_hub
from raysae.corpora.local_files import unchanged_local
from raysae.corpora.locations import HUB_SCHEME
from raysae.corpora.objects import fetch_object, unchanged_object
from raysae.corpora.ranged import Fetch, RangedFile

WHOLE_GROUPS_BYTES = 32 * 2**20
"""Row groups of a remote file are fetched at once, all columns in a few requests, up to this."""

BUFFER_BYTES = 8 * 2**20
"""Larger ones are fetched column by column in pieces of this size."""


def fetcher(uri: str) -> Fetch:
    """Return what reads ranges of a remote file."""
    return fetch_hub(uri) if uri.startswith(f"{HUB_SCHEME}://") else fetch_object(uri)


@contextmanager
def open_rows(
    file: CorpusFile, start: int, stop: int, columns: Sequence[str]
) -> Iterator[pq.ParquetFile]:
    """Open a file to read some of its rows and columns.

    For a remote file a row group that is small is worth one or two requests for all its columns
    together (`pre_buffer`); a large one, which may hold gigabytes of images, is read in pieces, so
    that memory stays bounded and what follows the last row is not fetched. No cache of fsspec's
    lies between: columns are decoded in turns, which makes its single window jump and fetch again.

    Raises:
        DataError: The file is another than when the snapshot was taken.
        OSError: It cannot be read.
        pa.ArrowException: It is damaged.
    """
    if file.is_local:
        with unchanged_local(file) as path, pq.ParquetFile(path) as parquet:
            yield parquet
        return
    with ExitStack() as stack:
        if file.uri.startswith(f"{HUB_SCHEME}://"):
            fetch = fetch_hub(file.uri)
        else:
            fetch = stack.enter_context(unchanged_object(file))
        handle = RangedFile(file.size, fetch)
        metadata = pq.read_metadata(handle)
        groups = row_groups(metadata, start, stop)[0]
        if _compressed_bytes(metadata, groups, columns) <= WHOLE_GROUPS_BYTES:
            parquet = pq.ParquetFile(handle, metadata=metadata, pre_buffer=True)
        else:
            parquet = pq.ParquetFile(handle, metadata=metadata, buffer_size=BUFFER_BYTES)
        yield parquet


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
        file: As `open_rows` opens it.
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
            yield _conform(batch.slice(low, high - low), schema)
        row += batch.num_rows
        if row >= stop:
            break


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Give a file's rows the corpus' columns and types."""
    columns = [
        pc.cast(batch.column(field.name), field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
