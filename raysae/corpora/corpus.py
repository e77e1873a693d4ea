"""What every corpus offers: a snapshot, rows by range, and samples or rejections from rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from raysae.artifacts import ShardSpec
from raysae.corpora.clients import reason_of
from raysae.corpora.columns import ColumnMap
from raysae.corpora.conform import BROKEN, UnfitError, unify, with_rows
from raysae.corpora.files import changed
from raysae.corpora.learned import FileSchema
from raysae.corpora.reading import read_rows
from raysae.corpora.snapshot import CorpusSnapshot
from raysae.errors import DataError
from raysae.sample import Rejection, Sample

READ_BATCH_ROWS = 64
"""Rows decoded at a time: a row group may hold gigabytes of images, and a shard wants a few."""


@dataclass(frozen=True)
class CorpusSettings:
    """Which rows a job works on (content: part of every id).

    Attributes:
        name: `builtin` (shipped, needs no network), `builtin-noisy` (the same kind of rows, some of
            them corrupted on purpose), `align-anything`, `rlaif-v`, `spa-vl` (as published), or
            `generic` (columns of any names, see `columns`).
        path: A file, or what is searched for Parquet, Arrow or JSON lines: a directory,
            `s3://bucket/prefix`, `gs://…`, `abfs://…`, or
            `hf://datasets/owner/name[@revision]/path`. Empty for the built-in ones.
        files: Pattern of the files that are meant, below `path`: `data/train*`. Empty: those that
            the data set is known to have, or all.
        configuration: Which part of `align-anything`; empty: `text-image-to-text`.
        columns: Which columns hold what, for `generic`.
        max_rows: Use only the first so many rows, files in the order of their names; 0 means all.
    """

    name: str = "builtin"
    path: str = ""
    max_rows: int = 0
    files: str = ""
    configuration: str = ""
    columns: ColumnMap = field(default_factory=ColumnMap)


class Corpus(ABC):
    """An opened corpus.

    Opening looks at every file, so open on the driver and send the object to the workers: it
    pickles, holds no open file, and its reading methods may be called from any process.

    Attributes:
        snapshot: Its files and rows.
        schema: The columns that `read` returns: of all files together, in the first file's order.
        left_out: How many files beside these are not meant, as far as it is known.
    """

    columns: Sequence[str]
    """The columns that `samples` looks at."""

    def __init__(
        self, snapshot: CorpusSnapshot, schemas: Sequence[FileSchema], left_out: int = 0
    ) -> None:
        for uri, schema in with_rows(schemas):
            self.check_columns(schema, uri)
        self.snapshot = snapshot
        self.left_out = left_out
        self._fields = unify(schemas)
        kept = [field for field in self._fields if field.name != BROKEN]
        self.schema = pa.schema(kept, metadata=self._fields.metadata)

    @abstractmethod
    def check_columns(self, schema: pa.Schema, file: str) -> None:
        """Raise DataError if a file lacks a column or has one of an unusable type; name both."""

    @property
    def has_images(self) -> bool:
        """Whether any row can have an image."""
        return True

    @property
    def has_pairs(self) -> bool:
        """Whether any row can have a better and a worse answer."""
        return True

    def reading(self) -> dict[str, Any]:
        """Return what determines the samples beside the files, for ids."""
        return {}

    @abstractmethod
    def samples(self, table: pa.Table, first_ordinal: int) -> Iterator[Sample | Rejection]:
        """Turn rows into samples: for each row, in order, either a `Sample` or a `Rejection`.

        Args:
            table: Consecutive rows with at least `columns`, as `read` returns them.
            first_ordinal: The ordinal of its first row.
        """

    def read(
        self, file_index: int, start: int, stop: int, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Read the rows `start` to `stop` of one file, and no others.

        Row groups outside of the range are not touched, and a large one is decoded piece by piece,
        so memory is bounded by the rows asked for.

        Args:
            file_index: Which file of the snapshot.
            start: First row in the file.
            stop: One past the last row.
            columns: Only these; all of `schema` if None.

        Raises:
            DataError: The file is damaged, or another than when the snapshot was taken.
        """
        schema = self._schema_of(columns)
        pieces = list(self._pieces(file_index, start, stop, schema, READ_BATCH_ROWS))
        return pa.Table.from_batches(pieces, schema)

    def batches(
        self,
        file_index: int,
        columns: Sequence[str] | None = None,
        rows: int = READ_BATCH_ROWS,
    ) -> Iterator[pa.RecordBatch]:
        """Read all rows of one file, in order and once, a few at a time.

        Reading range by range instead decodes a large row group from its start for each range.

        Args:
            file_index: Which file of the snapshot.
            columns: As in `read`.
            rows: Rows in a batch, at most.

        Raises:
            DataError: As `read`.
        """
        stop = self.snapshot.files[file_index].rows
        return self._pieces(file_index, 0, stop, self._schema_of(columns), rows)

    def _schema_of(self, columns: Sequence[str] | None) -> pa.Schema:
        fields = [self._fields.field(name) for name in columns or self.schema.names]
        return pa.schema(fields, metadata=self.schema.metadata)

    def _pieces(
        self, file_index: int, start: int, stop: int, schema: pa.Schema, rows: int
    ) -> Iterator[pa.RecordBatch]:
        file = self.snapshot.files[file_index]
        found = 0
        try:
            for piece in read_rows(file, start, stop, schema, rows):
                found += piece.num_rows
                yield piece
        except UnfitError as error:
            raise DataError(f"{file.uri}: {error}; write the files with one schema.") from error
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{file.uri} cannot be read ({reason_of(error)}); restore it."
            ) from error
        if found != stop - start:
            raise changed(file.uri)

    def read_samples(self, shard: ShardSpec) -> Iterator[Sample | Rejection]:
        """Read one shard, and yield its rows as samples and rejections, one per row, in order."""
        table = self.read(shard.file_index, shard.start, shard.stop, self.columns)
        yield from self.samples(table, shard.first_ordinal)

    def all_samples(self) -> Iterator[Sample | Rejection]:
        """Read every row, in order, a few at a time."""
        for index in range(len(self.snapshot.files)):
            ordinal = self.snapshot.first_ordinal(index)
            for batch in self.batches(index, self.columns):
                yield from self.samples(pa.Table.from_batches([batch]), ordinal)
                ordinal += batch.num_rows
