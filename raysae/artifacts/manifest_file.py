"""One manifest of the score table: a Parquet file with one row per live row group.

The rows are in `MANIFEST_SCHEMA`, sorted by corpus, scorer, lineage and start. The schema's
metadata holds the format's version, the manifest's number, and that of the one it was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts.marks import mark_name
from raysae.artifacts.row_groups import MARKS, RowGroup, key_of_file
from raysae.errors import DataError

MANIFEST_VERSION = 1
"""Version of the manifests' format."""

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("scorer", pa.string(), nullable=False),
        pa.field("lineage", pa.string(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
"""The first five identify the row group; `path` is its data file below the table's directory, with
its rows, bytes and SHA-256."""

METADATA_KEY = b"raysae_score_manifest"
"""In the schema's metadata: JSON with `format_version`, `number` and `parent`."""

SORTED_BY = ("corpus", "scorer", "lineage", "start")

_ROWS_AT_ONCE = 16_384


class LiveGroup(NamedTuple):
    """One row of a manifest, as `MANIFEST_SCHEMA` says."""

    corpus: str
    scorer: str
    lineage: str
    start: int
    stop: int
    path: str
    rows: int
    size: int
    sha256: str

    @property
    def group(self) -> RowGroup:
        """What identifies the row group."""
        return RowGroup(self.corpus, self.scorer, self.lineage, self.start, self.stop)

    @property
    def mark(self) -> str:
        """Name of its mark in the table's directory."""
        return mark_name(f"{MARKS}/{key_of_file(self.path)}")


@dataclass(frozen=True)
class Manifest:
    """One manifest, opened: its rows are decoded as they are asked for.

    Attributes:
        number: Its number; 0 where nothing was published yet.
        parent: The number of the manifest that it was made from.
        where: Its path or URI.
        data: The file.
    """

    number: int
    parent: int
    where: str
    data: pa.Buffer

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the live row groups, some thousand at a time, sorted.

        Args:
            columns: Only these of `MANIFEST_SCHEMA`; all of them if None.

        Raises:
            DataError: The file is damaged.
        """
        names = MANIFEST_SCHEMA.names if columns is None else list(columns)
        try:
            with _open(self.data) as file:
                yield from file.iter_batches(_ROWS_AT_ONCE, columns=names)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(self.where, error) from error

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the live row groups, sorted, as `batches` yields them."""
        names = MANIFEST_SCHEMA.names if columns is None else list(columns)
        schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in names])
        return pa.Table.from_batches([batch.cast(schema) for batch in self.batches(names)], schema)

    @property
    def rows(self) -> int:
        """Number of live row groups."""
        with _open(self.data) as file:
            return int(file.metadata.num_rows)

    def __iter__(self) -> Iterator[LiveGroup]:
        for batch in self.batches():
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield LiveGroup(*row)


def as_rows(groups: Sequence[LiveGroup]) -> pa.Table:
    """Return row groups as rows in `MANIFEST_SCHEMA`."""
    columns = zip(*groups, strict=True) if groups else [()] * len(MANIFEST_SCHEMA)
    return pa.table([list(values) for values in columns], schema=MANIFEST_SCHEMA)


def encode(rows: pa.Table, number: int, parent: int) -> bytes:
    """Return a manifest's file: the same bytes for the same rows, wherever it is made."""
    about = {"format_version": MANIFEST_VERSION, "number": number, "parent": parent}
    table = rows.combine_chunks().cast(MANIFEST_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({METADATA_KEY: json.dumps(about)}),
        sink,
        compression="zstd",
        row_group_size=_ROWS_AT_ONCE,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def open_manifest(data: bytes, number: int, where: str) -> Manifest:
    """Open a manifest's file.

    Args:
        data: Its bytes.
        number: The number that its name gives it.
        where: Its path or URI, for messages.

    Raises:
        DataError: It is damaged, or a newer raysae wrote it.
    """
    buffer = pa.py_buffer(data)
    try:
        with _open(buffer) as file:
            schema = file.schema_arrow
        header = json.loads((schema.metadata or {})[METADATA_KEY])
        version = int(header["format_version"])
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise _damaged(where, error) from error
    if version != MANIFEST_VERSION:
        raise DataError(
            f"{where} is a manifest of format {version}, but this raysae reads and writes format "
            f"{MANIFEST_VERSION}; install the raysae that made it, or name another storage."
        )
    if header.get("number") != number or not schema.equals(MANIFEST_SCHEMA):
        raise _damaged(where, "it is not the manifest that was written under this name")
    return Manifest(number, int(header["parent"]), where, buffer)


def _open(data: pa.Buffer) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)


def _damaged(where: str, why: object) -> DataError:
    words = " ".join(str(why).split()).rstrip(".")
    return DataError(
        f"{where} is damaged ({words}); delete it, so that the manifest before it counts, and run "
        "the jobs that published since again: what is scored is kept."
    )
