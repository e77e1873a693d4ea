from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysae.activations.format import tokens_schema
from raysae.activations.mapped_shard import open_shard, view_activations
from raysae.errors import DataError
from tests.storages import at


def record_batch(activations: pa.Array) -> pa.RecordBatch:
    n = len(activations)
    numbers = [pa.array(np.arange(n, dtype=np.int32))] * 3
    others = [pa.array(np.zeros(n, np.uint8)), pa.array(np.ones(n, np.float32))]
    columns = [*numbers, *others, activations]
    return pa.RecordBatch.from_arrays(columns, schema=tokens_schema(3, "float32"))


def write(path: Path, batches: list[pa.RecordBatch]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batches[0].schema) as stream:
        for batch in batches:
            stream.write_batch(batch)


def test_views_honour_slices_and_copy_nothing() -> None:
    values = pa.array(np.arange(30, dtype=np.float32))
    batch = record_batch(pa.FixedSizeListArray.from_arrays(values, 3))
    view = view_activations(batch.slice(4, 3))
    assert view.tolist() == np.arange(12, 21, dtype=np.float32).reshape(3, 3).tolist()
    assert view.__array_interface__["data"][0] == values.buffers()[1].address + 12 * 4


def test_slices_written_by_others(tmp_path: Path) -> None:
    values = pa.array(np.arange(30, dtype=np.float32))
    batch = record_batch(pa.FixedSizeListArray.from_arrays(values, 3))
    write(tmp_path / "x.arrow", [batch.slice(2, 3), batch.slice(0, 0), batch.slice(7, 2)])
    shard = open_shard(at(tmp_path), "x.arrow")
    acts_md = np.empty((3, 3), np.float32)
    columns = {"position": np.empty(3, np.int32)}
    shard.gather(np.array([0, 3, 4]), acts_md, columns)
    assert acts_md[:, 0].tolist() == [6, 21, 24]
    assert columns["position"].tolist() == [2, 7, 8]


def test_nulls_are_refused(tmp_path: Path) -> None:
    activations = pa.array([[1.0, 2, 3], None], pa.list_(pa.float32(), 3))
    write(tmp_path / "x.arrow", [record_batch(activations)])
    with pytest.raises(DataError, match="nulls"):
        open_shard(at(tmp_path), "x.arrow")
