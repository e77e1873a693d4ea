"""A shard's tokens on their way from the model to training: in parts, without a file.

A part is what a token file with one record batch would hold, so that the same code reads both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysae.activations.collected import OrderedTokens
from raysae.activations.format import MAX_BATCH_BYTES, dtype_name, tokens_schema
from raysae.activations.mapped_shard import MappedShard
from raysae.activations.record_batches import rows_in_batch


def shard_parts(tokens: OrderedTokens, max_bytes: int = MAX_BATCH_BYTES) -> Iterator[pa.Buffer]:
    """Yield a shard's tokens in the order of writing, each part an Arrow IPC stream; at least one.

    Args:
        tokens: In the order of writing.
        max_bytes: Of a part's tokens; 64 MiB by default.
    """
    schema = tokens_schema(tokens.acts_nd.shape[1], dtype_name(tokens.acts_nd.dtype))
    if len(tokens.source_m) == 0:
        yield _as_stream(schema, None)
    with tokens.batches(max_bytes) as batches:
        for batch in batches:
            yield _as_stream(schema, batch)


def n_parts(tokens: OrderedTokens, max_bytes: int = MAX_BATCH_BYTES) -> int:
    """Return how many parts `shard_parts` yields."""
    d_in, dtype = tokens.acts_nd.shape[1], dtype_name(tokens.acts_nd.dtype)
    return max(1, -(-len(tokens.source_m) // rows_in_batch(d_in, dtype, max_bytes)))


def _as_stream(schema: pa.Schema, batch: pa.RecordBatch | None) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        if batch is not None:
            stream.write_batch(batch)
    return sink.getvalue()


class ShardInMemory:
    """A shard of which all parts have arrived.

    Args:
        number: The shard's.
        parts: As `shard_parts` yielded them, in order; they are kept, not copied.
        where: The shard's name, for messages.

    Attributes:
        number: The shard's.
        rows: Its tokens.
        d_in: Width of the hidden states.
        dtype: Their dtype.

    Raises:
        DataError: A part is damaged.
    """

    def __init__(self, number: int, parts: Sequence[pa.Buffer], where: str) -> None:
        self.number = number
        self._parts = [MappedShard(part, where) for part in parts]
        self._starts = np.cumsum([0, *(part.rows for part in self._parts)], dtype=np.int64)
        self.rows = int(self._starts[-1])
        self.d_in, self.dtype = self._parts[0].d_in, self._parts[0].dtype

    def gather(
        self,
        row_m: npt.NDArray[np.int64],
        acts_md: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Copy rows, ascending, into a result; see `MappedShard.gather`."""
        edges = np.searchsorted(row_m, self._starts).tolist()
        for part, first, (start, stop) in zip(
            self._parts, self._starts, pairwise(edges), strict=False
        ):
            if start < stop:
                columns_k = {name: column_m[start:stop] for name, column_m in columns.items()}
                part.gather(row_m[start:stop] - first, acts_md[start:stop], columns_k)
