from __future__ import annotations

import hashlib
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.artifacts import FileRecord, ShardPlan
from raysae.artifacts.shard_list import SHARD_LIST_SCHEMA, listed_files, write_shard_list
from raysae.errors import DataError
from raysae.storage import Directory

PLAN = ShardPlan([3, 0, 4], 2)


def mark(number: int, files: int = 2) -> dict[str, Any]:
    listed = [{"name": f"{number}-{n}", "size": n, "sha256": f"{number}{n}"} for n in range(files)]
    return {"rows": 2, "rejected": number, "files": listed, "seconds": number}


MARKS = [mark(number) for number in range(len(PLAN))]


def table(directory: Directory, record: FileRecord) -> pa.Table:
    return pq.read_table(pa.BufferReader(directory.read_bytes(record.name)))


def test_a_row_for_every_file_in_order(storage_root: Directory) -> None:
    record = write_shard_list(storage_root, PLAN, MARKS)
    found = table(storage_root, record)
    assert found.schema.equals(SHARD_LIST_SCHEMA)
    assert found.to_pylist() == [
        {
            "shard": shard.name,
            "file_index": shard.file_index,
            "start": shard.start,
            "stop": shard.stop,
            "rows": 2,
            "rejected": number,
            **file,
        }
        for number, shard in enumerate(PLAN)
        for file in MARKS[number]["files"]
    ]


def test_its_name_is_its_content(storage_root: Directory) -> None:
    record = write_shard_list(storage_root, PLAN, MARKS)
    data = storage_root.read_bytes(record.name)
    sha256 = hashlib.sha256(data).hexdigest()
    assert record == FileRecord(f"shards-{sha256[:16]}.parquet", len(data), sha256)
    assert write_shard_list(storage_root, PLAN, iter(MARKS)) == record
    timed = [{**one, "seconds": 77} for one in MARKS]
    assert write_shard_list(storage_root, PLAN, timed) == record
    assert write_shard_list(storage_root, PLAN, [*MARKS[:-1], mark(9)]) != record
    assert [entry.key for entry in storage_root.entries() if entry.key == record.name]


def test_a_list_longer_than_what_is_held_in_memory(storage_root: Directory) -> None:
    plan = ShardPlan([5000], 1)
    marks = (mark(number) for number in range(5000))
    record = write_shard_list(storage_root, plan, marks)
    assert table(storage_root, record).num_rows == 10_000
    parts = list(listed_files(storage_root, [FileRecord("other", 1, ""), record]))
    assert len(parts) > 1
    assert list(chain(*parts)) == [
        FileRecord(f"{number}-{n}", n, f"{number}{n}") for number in range(5000) for n in range(2)
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_shards_without_files_or_no_shards(storage_root: Directory, count: int) -> None:
    record = write_shard_list(storage_root, ShardPlan([count], 1), [mark(0, files=0)] * count)
    assert table(storage_root, record).num_rows == 0
    assert list(chain(*listed_files(storage_root, [record]))) == []


def test_an_artifact_without_shards_lists_none(storage_root: Directory) -> None:
    assert list(listed_files(storage_root, [FileRecord("cfg.json", 1, "")])) == []


def test_a_shard_without_a_mark_is_a_mistake(storage_root: Directory) -> None:
    with pytest.raises(ValueError, match="shorter"):
        write_shard_list(storage_root, PLAN, MARKS[:-1])
    assert list(storage_root.entries()) == []


def other_table() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"name": ["a"]}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("sum_fits", [True, False])
@pytest.mark.parametrize("data", [b"", b"garbage", bytes(5000), other_table()])
def test_a_damaged_list_is_named(storage_root: Directory, data: bytes, sum_fits: bool) -> None:
    storage_root.put_bytes("shards-x.parquet", data)
    sha256 = hashlib.sha256(data).hexdigest() if sum_fits else "0" * 64
    record = FileRecord("shards-x.parquet", len(data), sha256)
    with pytest.raises(DataError, match=r"shards-x\.parquet is damaged .*delete it and run again"):
        list(listed_files(storage_root, [record]))
