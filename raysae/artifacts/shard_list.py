"""The table of a finished artifact's shards and their files, instead of one mark for each.

`shards-<checksum>.parquet`: one row per file, in the order of the shards, in `SHARD_LIST_SCHEMA`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts.files import CHECKSUM, FileRecord, publish_file
from raysae.artifacts.shards import ShardSpec
from raysae.errors import DataError
from raysae.storage import Directory, finished_or_gone

SHARD_LIST_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("file_index", pa.int32(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("stop", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("rejected", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)
"""`start` and `stop` are rows of the corpus' file `file_index`; `rows` were used, of `rejected` the
shard's mark says which and why; `name`, `size` and `sha256` are of one of the shard's files."""

_PREFIX = "shards-"
_ROWS_AT_ONCE = 4096


def is_shard_list(name: str) -> bool:
    """Whether a file that an artifact's metadata lists is its table of shards."""
    return name.startswith(_PREFIX) and name.endswith(".parquet")


def write_shard_list(
    directory: Directory, shards: Iterable[ShardSpec], marks: Iterable[Mapping[str, Any]]
) -> FileRecord:
    """Publish the table; its name carries its content's checksum.

    Args:
        directory: The artifact.
        shards: All shards, in order.
        marks: Their marks, in the same order; read one at a time.
    """
    rows: list[dict[str, Any]] = []
    with finished_or_gone(directory.scratch(f"{_PREFIX}list")) as local:
        with pq.ParquetWriter(local, SHARD_LIST_SCHEMA, compression="zstd") as writer:
            for shard, mark in zip(shards, marks, strict=True):
                rows += _rows(shard, mark)
                if len(rows) >= _ROWS_AT_ONCE:
                    writer.write_table(pa.Table.from_pylist(rows, SHARD_LIST_SCHEMA))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, SHARD_LIST_SCHEMA))
        return publish_file(directory, local, f"{_PREFIX}{CHECKSUM}.parquet")


def _rows(shard: ShardSpec, mark: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a shard's rows of the table: one for each of its files."""
    about = {
        "shard": shard.name,
        "file_index": shard.file_index,
        "start": shard.start,
        "stop": shard.stop,
        "rows": mark.get("rows", 0),
        "rejected": mark.get("rejected", 0),
    }
    return [{**about, **file} for file in mark["files"]]


def listed_files(directory: Directory, files: Sequence[FileRecord]) -> Iterator[list[FileRecord]]:
    """Yield the shards' files that an artifact's table lists, some thousand at a time.

    Args:
        directory: The artifact.
        files: Those that its metadata lists; without a table among them there is nothing to yield.

    Raises:
        DataError: The table is damaged.
    """
    listed = shard_files(directory, files)
    while part := [one.file for one in islice(listed, _ROWS_AT_ONCE)]:
        yield part


class ListedFile(NamedTuple):
    """One row of the table: a file, and the shard that it belongs to.

    Attributes:
        shard: The shard's name.
        rows: The shard's rows that were used.
        rejected: The shard's rows that could not be.
        file: The file.
    """

    shard: str
    rows: int
    rejected: int
    file: FileRecord


def shard_files(directory: Directory, files: Sequence[FileRecord]) -> Iterator[ListedFile]:
    """Yield what an artifact's table lists, in order of the shards, some thousand in memory.

    Args:
        directory: The artifact.
        files: Those that its metadata lists; without a table among them there is nothing to yield.

    Raises:
        FileNotFoundError: The table is not there.
        DataError: It is damaged.
    """
    columns = ["shard", "rows", "rejected", "name", "size", "sha256"]
    for listed in files:
        if not is_shard_list(listed.name):
            continue
        where, data = directory.describe(listed.name), directory.read_bytes(listed.name)
        if hashlib.sha256(data).hexdigest() != listed.sha256:
            raise _damaged(where, "its bytes are not those written")
        try:
            with pq.ParquetFile(pa.BufferReader(data)) as table:
                for batch in table.iter_batches(_ROWS_AT_ONCE, columns=columns):
                    values = (batch.column(name).to_pylist() for name in columns)
                    for shard, rows, rejected, *file in zip(*values, strict=True):
                        yield ListedFile(shard, rows, rejected, FileRecord(*file))
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise _damaged(where, error) from error


def _damaged(where: str, why: object) -> DataError:
    return DataError(
        f"{where} is damaged ({why}); delete it and run again, which lists the shards anew."
    )
