"""One manifest of the score table: a Parquet file with one row per live row group and series.

The rows are in `MANIFEST_SCHEMA`, sorted by corpus, scorer, series, lineage and start. The file's
metadata holds the format's version, the manifest's number, that of the one it was made from, and a
checksum of the whole file: a damaged manifest that opens would lose rows, or count some twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysae.artifacts.marks import mark_name
from raysae.artifacts.row_groups import MARKS, RowGroup, key_of_file
from raysae.errors import DataError

MANIFEST_VERSION = 2
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
        pa.field("series", pa.string(), nullable=False),
        pa.field("published", pa.int64(), nullable=False),
    ]
)
"""The first five identify the row group; `path` is its data file below the table's directory, with
its rows, bytes and SHA-256. `series` says which row groups were published together, and `published`
in which manifest they first were. A row group of several series has a row for each."""

METADATA_KEY = b"raysae_score_manifest"
"""In the file's metadata: JSON with `format_version`, `number`, `parent` and `sha256`, which is
that of the file with `UNKNOWN` in its place."""

UNKNOWN = "0" * 64

SORTED_BY = ("corpus", "scorer", "series", "lineage", "start")

_ROWS_AT_ONCE = 16_384
_UNREADABLE = (OSError, pa.ArrowException, ValueError, LookupError, TypeError, AttributeError)


class LiveGroup(NamedTuple):
    """One row of a manifest, as `MANIFEST_SCHEMA` says; of no series where a mark told the rest."""

    corpus: str
    scorer: str
    lineage: str
    start: int
    stop: int
    path: str
    rows: int
    size: int
    sha256: str
    series: str = ""
    published: int = 0

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
        """Yield the rows, some thousand at a time, sorted.

        Args:
            columns: Only these of `MANIFEST_SCHEMA`; all of them if None.
        """
        names = MANIFEST_SCHEMA.names if columns is None else list(columns)
        with pq.ParquetFile(pa.BufferReader(self.data)) as file:
            yield from file.iter_batches(_ROWS_AT_ONCE, columns=names)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows, sorted, as `batches` yields them."""
        names = MANIFEST_SCHEMA.names if columns is None else list(columns)
        schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in names])
        return pa.Table.from_batches([batch.cast(schema) for batch in self.batches(names)], schema)

    def newest_series(self) -> dict[str, str]:
        """Return the series of each corpus that was published last."""
        rows = latest_series(self.table(["corpus", "series", "published"]), 1)
        return {corpus: series for corpus, series, _ in _series_of(rows)}

    @property
    def rows(self) -> int:
        """Number of its rows."""
        with pq.ParquetFile(pa.BufferReader(self.data)) as file:
            return int(file.metadata.num_rows)

    def __iter__(self) -> Iterator[LiveGroup]:
        for batch in self.batches():
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield LiveGroup(*row)


def latest_series(rows: pa.Table, count: int) -> pa.Table:
    """Return the rows of the series that were published last.

    Args:
        rows: With at least the columns `corpus`, `series` and `published`.
        count: How many series of each corpus.
    """
    by_corpus: dict[str, list[tuple[int, str]]] = {}
    for corpus, series, published in _series_of(rows):
        by_corpus.setdefault(corpus, []).append((published, series))
    kept = [series for found in by_corpus.values() for _, series in sorted(found)[-count:]]
    return rows.filter(pc.is_in(rows["series"], value_set=pa.array(kept, pa.string())))


def _series_of(rows: pa.Table) -> Iterator[tuple[str, str, int]]:
    """Yield corpus, series and `published` of every series."""
    found = rows.group_by(["corpus", "series"]).aggregate([("published", "max")])
    columns = (found[name].to_pylist() for name in ("corpus", "series", "published_max"))
    return zip(*columns, strict=True)


def as_rows(groups: Sequence[LiveGroup]) -> pa.Table:
    """Return row groups as rows in `MANIFEST_SCHEMA`."""
    columns = zip(*groups, strict=True) if groups else [()] * len(MANIFEST_SCHEMA)
    return pa.table([list(values) for values in columns], schema=MANIFEST_SCHEMA)


def encode(rows: pa.Table, number: int, parent: int) -> bytes:
    """Return a manifest's file: the same bytes for the same rows, wherever it is made.

    Args:
        rows: In `MANIFEST_SCHEMA`, sorted.
        number: The manifest's number.
        parent: The number of the manifest that it was made from.
    """
    about = {
        "format_version": MANIFEST_VERSION,
        "number": number,
        "parent": parent,
        "sha256": UNKNOWN,
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, MANIFEST_SCHEMA, compression="zstd", store_schema=False) as writer:
        writer.write_table(rows.combine_chunks().cast(MANIFEST_SCHEMA), _ROWS_AT_ONCE)
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(about).encode()})
    blank = bytes(sink.getvalue())
    return blank.replace(UNKNOWN.encode(), hashlib.sha256(blank).hexdigest().encode())


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
        with pq.ParquetFile(pa.BufferReader(buffer)) as file:
            about = json.loads(file.metadata.metadata[METADATA_KEY])
        version, parent, sha256 = about["format_version"], int(about["parent"]), about["sha256"]
        intact = hashlib.sha256(data.replace(sha256.encode(), UNKNOWN.encode())).hexdigest()
    except _UNREADABLE as error:
        raise _damaged(where, error) from error
    if version != MANIFEST_VERSION:
        raise DataError(
            f"{where} is a manifest of format {version}, but this raysae reads and writes format "
            f"{MANIFEST_VERSION}; install the raysae that made it, or name another storage."
        )
    if intact != sha256 or about["number"] != number:
        raise _damaged(where, "it is not what was written under this name")
    return Manifest(number, parent, where, buffer)


def _damaged(where: str, why: object) -> DataError:
    words = " ".join(str(why).split()).rstrip(".")
    return DataError(
        f"{where} is damaged ({words}); delete it, so that the manifest before it counts if there "
        "is one, and run jobs/filter.py with the settings of then: what is scored is kept."
    )
