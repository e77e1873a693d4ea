"""Manifests: which row groups of the score table are live.

`manifests/<number>.parquet`: one row per live row group in `MANIFEST_SCHEMA`, sorted by corpus,
scorer, lineage and start. A manifest never changes; the highest number counts. Publishing writes a
new one, under a name that must be free: of two runs at once the later one finds its number taken
and starts again from the other one's manifest.

Whoever removes old manifests has to keep those that are younger than a publication may take: a run
that has read one of them counts on finding the next number taken if there was a next one.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts.marks import mark_name
from raysae.artifacts.row_groups import MARKS, RowGroup, key_of_file
from raysae.errors import DataError, StorageError
from raysae.storage import Directory

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

_NAME = re.compile(r"([0-9]{8,})\.parquet")
_ROWS_AT_ONCE = 16_384
_ATTEMPTS = 100
_LONGEST_PAUSE_S = 0.5


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
class _Header:
    """What a manifest says of itself."""

    format_version: int
    number: int
    parent: int


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
        return (
            pa.Table.from_batches(self.batches(names)).cast(schema)
            if self.rows
            else schema.empty_table()
        )

    @property
    def rows(self) -> int:
        """Number of live row groups."""
        with _open(self.data) as file:
            return int(file.metadata.num_rows)

    def __iter__(self) -> Iterator[LiveGroup]:
        for batch in self.batches():
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield LiveGroup(*row)


class Manifests:
    """The manifests of one score table.

    Args:
        directory: Where they lie.
    """

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    def numbers(self) -> list[int]:
        """Return the numbers of all manifests, ascending, by one listing."""
        found = (_NAME.fullmatch(entry.key) for entry in self.directory.entries())
        return sorted(int(one[1]) for one in found if one and one[0] == _name(int(one[1])))

    def latest(self) -> Manifest:
        """Return the manifest that counts; an empty one of number 0 if there is none.

        Raises:
            DataError: It is damaged, or a newer raysae wrote it.
        """
        for _ in range(_ATTEMPTS):
            numbers = self.numbers()
            if not numbers:
                data = encode(MANIFEST_SCHEMA.empty_table(), 0, 0)
                return Manifest(0, 0, str(self.directory), pa.py_buffer(data))
            try:
                return self.read(numbers[-1])
            except FileNotFoundError:
                # Removed since it was listed, because there are many newer ones by now.
                continue
        raise StorageError(
            f"storage: {self.directory} lists manifests that are not there; run again."
        )

    def read(self, number: int) -> Manifest:
        """Open one manifest.

        Raises:
            FileNotFoundError: There is none of this number.
            DataError: It is damaged, or a newer raysae wrote it.
        """
        where = self.directory.describe(_name(number))
        data = pa.py_buffer(self.directory.read_bytes(_name(number)))
        header = _check(data, number, where)
        return Manifest(number, header.parent, where, data)

    def append(self, added: pa.Table) -> int:
        """Make row groups live, in place of those of their lineage that overlap them.

        Args:
            added: In `MANIFEST_SCHEMA`, in any order.

        Returns:
            The number of the manifest in which they are: an existing one if it says the same.

        Raises:
            DataError: Two of them hold the same rows; or the latest manifest cannot be read.
            StorageError: Other runs published all the time.
        """
        for attempt in range(_ATTEMPTS):
            latest = self.latest()
            live = latest.table()
            merged = replaced(live, added)
            if merged.equals(live):
                return latest.number
            number = latest.number + 1
            if self.directory.create(_name(number), encode(merged, number, latest.number)):
                return number
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**attempt)))
        raise StorageError(
            f"storage: other runs published in {self.directory} {_ATTEMPTS} times while this one "
            "tried; run again: what is finished is kept."
        )


def replaced(live: pa.Table, added: pa.Table) -> pa.Table:
    """Return the row groups that are live once some more are: sorted, none overlapping another.

    Args:
        live: A manifest's rows.
        added: Those that take the place of what they overlap.

    Raises:
        DataError: Two of `added` overlap each other.
    """
    rows = pa.concat_tables([live, added])
    codes = rows["lineage"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    bounds = np.concatenate([rows["start"].to_numpy(), rows["stop"].to_numpy()])
    values, ranks = np.unique(bounds, return_inverse=True)
    width = len(values) + 1
    starts, stops = (codes * width + part for part in np.split(ranks.astype(np.int64), 2))
    new_starts, new_stops = np.sort(starts[len(live) :]), np.sort(stops[len(live) :])
    # Of the added ones of this lineage: those that begin before the end, less those that end before
    # the beginning. A lineage's numbers are all below those of the next one.
    overlaps = np.searchsorted(new_starts, stops) - np.searchsorted(new_stops, starts, "right")
    twice = np.flatnonzero(overlaps[len(live) :] > 1)
    if len(twice):
        path = added["path"][int(twice[0])].as_py()
        raise DataError(
            f"{path} and another row group to be published hold the same rows; publish one of them."
        )
    kept = np.concatenate([overlaps[: len(live)] == 0, np.ones(len(added), bool)])
    merged = rows.filter(pa.array(kept))
    return merged.sort_by([(name, "ascending") for name in SORTED_BY])


def encode(rows: pa.Table, number: int, parent: int) -> bytes:
    """Return a manifest's file: the same bytes for the same rows, wherever it is made."""
    header = json.dumps(asdict(_Header(MANIFEST_VERSION, number, parent)), sort_keys=True)
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows.cast(MANIFEST_SCHEMA).replace_schema_metadata({METADATA_KEY: header}),
        sink,
        compression="zstd",
        row_group_size=_ROWS_AT_ONCE,
        write_page_checksum=True,
    )
    return bytes(sink.getvalue())


def _name(number: int) -> str:
    return f"{number:08d}.parquet"


def _open(data: pa.Buffer) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)


def _damaged(where: str, why: object) -> DataError:
    return DataError(
        f"{where} is damaged ({why}); delete it, so that the manifest before it counts, and run "
        "the jobs that published since again: what is scored is kept."
    )


def _check(data: pa.Buffer, number: int, where: str) -> _Header:
    """Read what a manifest says of itself.

    Raises:
        DataError: It is none, or of another format.
    """
    try:
        with _open(data) as file:
            schema = file.schema_arrow
        header = json.loads((schema.metadata or {})[METADATA_KEY])
        version = int(header["format_version"])
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise _damaged(where, " ".join(str(error).split())) from error
    if version != MANIFEST_VERSION:
        raise DataError(
            f"{where} is a manifest of format {version}, but this raysae reads and writes format "
            f"{MANIFEST_VERSION}; install the raysae that made it, or name another storage."
        )
    if header.get("number") != number or not schema.equals(MANIFEST_SCHEMA):
        raise _damaged(where, "it is not the manifest that was written under this name")
    return _Header(version, number, int(header["parent"]))
