"""Tokens in memory as Arrow record batches, gathered in a given order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raysae.activations.buffer import Memory, TokenColumns
from raysae.activations.format import (
    Compression,
    activation_array,
    as_numpy,
    dtype_name,
    row_bytes,
    tokens_schema,
)


def rows_in_batch(d_in: int, dtype: str, max_bytes: int) -> int:
    """Return the rows of a record batch of at most so many bytes, and at least one."""
    return max(1, max_bytes // row_bytes(d_in, dtype))


def record_batches(
    columns: TokenColumns,
    acts_nd: torch.Tensor,
    source_m: npt.NDArray[np.int64],
    max_bytes: int,
    compression: Compression = "none",
    *,
    memory: Memory,
) -> Iterator[pa.RecordBatch]:
    """Yield tokens in a given order; a batch is good until the next but one is asked for.

    Rows are gathered straight into two batches' memory, which is used by turns.

    Args:
        columns: The other columns, m rows, in the order of writing.
        acts_nd: The hidden states, (n, d_in), contiguous, on the CPU.
        source_m: int64 (m,), for each row its row in `acts_nd`.
        max_bytes: Of a batch.
        compression: Named in the schema; nothing is compressed here.
        memory: Where the two batches' memory comes from, and goes back to.
    """
    d_in, dtype = acts_nd.shape[1], dtype_name(acts_nd.dtype)
    schema = tokens_schema(d_in, dtype, compression)
    batch_rows = rows_in_batch(d_in, dtype, max_bytes)
    stored_nd = as_numpy(acts_nd)
    # Of one size whatever the shard's, for the next shard to use; only what is written costs.
    block = memory.take(2 * batch_rows * d_in * stored_nd.itemsize)
    gathered_2bd = block.view(stored_nd.dtype).reshape(2, batch_rows, d_in)
    for number, start in enumerate(range(0, len(source_m), batch_rows)):
        rows = slice(start, min(start + batch_rows, len(source_m)))
        batch_bd = gathered_2bd[number % 2, : rows.stop - rows.start]
        # mode="clip" writes straight into `out`; every index is in range.
        np.take(stored_nd, source_m[rows], axis=0, out=batch_bd, mode="clip")
        arrays: list[npt.NDArray[Any] | pa.Array] = [
            columns.sample_n[rows],
            columns.position_n[rows],
            columns.token_id_n[rows],
            columns.modality_n[rows],
            columns.norm_n[rows],
            activation_array(batch_bd.reshape(-1), d_in, dtype),
        ]
        yield pa.RecordBatch.from_arrays([*map(_arrow, arrays)], schema=schema)
    memory.give_back(block)


def one_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches, of which a thread makes the next one while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="gathering") as pool:
        following = pool.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, batches, None)
            yield batch


def _arrow(values: npt.NDArray[Any] | pa.Array) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values)
