"""The two files of a shard, written as Arrow IPC streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raysae.activations.buffer import TokenColumns
from raysae.activations.format import (
    MAX_BATCH_BYTES,
    SAMPLES_SCHEMA,
    activation_array,
    as_numpy,
    dtype_name,
    row_bytes,
    tokens_schema,
)


def write_token_file(
    path: Path, columns: TokenColumns, acts_nd: torch.Tensor, source_m: npt.NDArray[np.int64]
) -> None:
    """Write tokens in a given order.

    Rows are gathered straight into one record batch's memory, which is written and used again: each
    activation is copied once here and once by the system.

    Args:
        path: The file; replaced if there is one.
        columns: The other columns, m rows, in the order of writing.
        acts_nd: The hidden states, (n, d_in), contiguous, on the CPU.
        source_m: int64 (m,), for each row to write its row in `acts_nd`.
    """
    d_in, dtype = acts_nd.shape[1], dtype_name(acts_nd.dtype)
    schema = tokens_schema(d_in, dtype)
    batch_rows = max(1, MAX_BATCH_BYTES // row_bytes(d_in, dtype))
    stored_nd = as_numpy(acts_nd)
    gathered_bd = np.empty((min(batch_rows, len(source_m)), d_in), dtype=stored_nd.dtype)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
        for rows in _slices(len(source_m), batch_rows):
            batch_bd = gathered_bd[: rows.stop - rows.start]
            # mode="clip" writes straight into `out`; every index is in range.
            np.take(stored_nd, source_m[rows], axis=0, out=batch_bd, mode="clip")
            flat = batch_bd.reshape(-1)
            arrays = [
                columns.sample_n[rows],
                columns.position_n[rows],
                columns.token_id_n[rows],
                columns.modality_n[rows],
                activation_array(flat, d_in, dtype),
            ]
            stream.write_batch(pa.RecordBatch.from_arrays([*map(_arrow, arrays)], schema=schema))


def write_samples_file(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a shard's samples table from the columns of `SAMPLES_SCHEMA`."""
    table = pa.table(columns, schema=SAMPLES_SCHEMA)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SAMPLES_SCHEMA) as stream:
        stream.write_table(table)


def _arrow(values: npt.NDArray[Any] | pa.Array) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values)


def _slices(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))
