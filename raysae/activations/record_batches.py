"""Tokens in memory as Arrow record batches, gathered in a given order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    numpy_type,
    row_bytes,
    tokens_schema,
)


def rows_in_batch(d_in: int, dtype: str, max_bytes: int) -> int:
    """Return the rows of a record batch of at most so many bytes, and at least one."""
    return max(1, max_bytes // row_bytes(d_in, dtype))


@contextmanager
def record_batches(
    columns: TokenColumns,
    acts_nd: torch.Tensor,
    source_m: npt.NDArray[np.int64],
    max_bytes: int,
    compression: Compression = "none",
    *,
    memory: Memory,
) -> Iterator[Iterator[pa.RecordBatch]]:
    """Give tokens in a given order; a batch is good until the next but one is asked for.

    Rows are gathered straight into two batches' memory, which is used by turns and given back when
    the context ends: not before, since the last batches are in use until then, and not where it
    ends with an error, since a thread may still be gathering.

    Args:
        columns: The other columns, m rows, in the order of writing.
        acts_nd: The hidden states, (n, d_in), contiguous, on the CPU.
        source_m: int64 (m,), for each row its row in `acts_nd`.
        max_bytes: Of a batch.
        compression: Named in the schema; nothing is compressed here.
        memory: Where the two batches' memory comes from, and goes back to.
    """
    d_in, dtype = acts_nd.shape[1], dtype_name(acts_nd.dtype)
    batch_rows = rows_in_batch(d_in, dtype, max_bytes)
    # Of one size whatever the shard's, for the next shard to use; only what is written costs.
    block = memory.take(2 * batch_rows * d_in * acts_nd.element_size())
    gathered_2bd = block.view(numpy_type(dtype)).reshape(2, batch_rows, d_in)
    schema = tokens_schema(d_in, dtype, compression)
    yield _gathered(columns, acts_nd, source_m, gathered_2bd, schema)
    memory.give_back(block)


def _gathered(
    columns: TokenColumns,
    acts_nd: torch.Tensor,
    source_m: npt.NDArray[np.int64],
    gathered_2bd: npt.NDArray[Any],
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """Yield batches of rows that are gathered into two places by turns."""
    _, batch_rows, d_in = gathered_2bd.shape
    stored_nd, dtype = as_numpy(acts_nd), dtype_name(acts_nd.dtype)
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


def one_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches, of which a thread makes the next one while one is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="gathering") as pool:
        following = pool.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = pool.submit(next, batches, None)
            yield batch


def _arrow(values: npt.NDArray[Any] | pa.Array) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values)
