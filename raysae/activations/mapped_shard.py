"""One token file, mapped into memory."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysae.activations.format import read_tokens_schema
from raysae.errors import DataError
from raysae.storage import Directory

AGAIN = "delete it and run the job again, which makes this shard anew."

_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


COLUMNS: Mapping[str, npt.DTypeLike] = MappingProxyType(
    {"sample": np.int32, "position": np.int32, "token_id": np.int32, "modality": np.uint8}
)
"""The columns beside the activation, with their numpy types."""


class MappedShard:
    """A token file whose activations are views of the mapped file: opening copies none of them.

    The other columns, 13 bytes a row, are copied, so that they need not be looked up by batch.

    Args:
        content: The mapped file.
        where: Its path or URI, for messages.

    Attributes:
        d_in: Width of the hidden states.
        dtype: Their dtype.
        rows: Number of tokens.

    Raises:
        DataError: The file is damaged, cut short, or of another format.
    """

    def __init__(self, content: pa.Buffer, where: str) -> None:
        try:
            source = pa.BufferReader(content)
            with pa.ipc.open_stream(source) as stream:
                self.d_in, self.dtype = read_tokens_schema(stream.schema, where)
                batches = list(stream)
            # A stream that was cut between two batches reads without an error.
            source.seek(max(0, source.size() - len(_END_OF_STREAM)))
            complete = source.read() == _END_OF_STREAM
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"{where} cannot be read ({reason}); {AGAIN}") from error
        if not complete:
            raise DataError(f"{where} was cut short; {AGAIN}")
        if any(column.null_count for batch in batches for column in batch.columns):
            raise DataError(f"{where} has nulls, which no cache has; {AGAIN}")
        self._acts = [view_activations(batch) for batch in batches]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)], dtype=np.int64)
        self._columns = {
            name: np.concatenate([np.empty(0, dtype), *(batch.column(name) for batch in batches)])
            for name, dtype in COLUMNS.items()
        }
        self.rows = int(self._starts[-1])
        self._where = where

    def gather(
        self,
        row_m: npt.NDArray[np.int64],
        acts_md: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Copy rows into a result.

        Ascending rows walk through the file once, and each piece of it is gathered straight into
        its place: one copy, about twice as fast as rows in any order.

        Args:
            row_m: int64 (m,), ascending; repetitions allowed.
            acts_md: Takes the activations, in the stored type, contiguous.
            columns: Take the other columns, by name, each (m,).

        Raises:
            IndexError: There is no such row.
        """
        if len(row_m) and not 0 <= row_m[0] <= row_m[-1] < self.rows:
            raise IndexError(
                f"{self._where} has {self.rows} rows, asked for {row_m[0]} to {row_m[-1]}"
            )
        edges = np.searchsorted(row_m, self._starts).tolist()
        for acts_bd, first, (start, stop) in zip(
            self._acts, self._starts, pairwise(edges), strict=False
        ):
            if start < stop:
                # mode="clip" writes straight into `out`; the rows were checked above.
                index_k = row_m[start:stop] - first
                np.take(acts_bd, index_k, axis=0, out=acts_md[start:stop], mode="clip")
        for name, column_m in columns.items():
            np.take(self._columns[name], row_m, out=column_m, mode="clip")


def open_shard(directory: Directory, name: str) -> MappedShard:
    """Map a cache's token file.

    Raises:
        DataError: It is missing, damaged, cut short, or of another format.
    """
    try:
        content = directory.map(name)
    except FileNotFoundError as error:
        raise DataError(
            f"{directory.describe(name)} is missing; run the job again, which makes it anew."
        ) from error
    return MappedShard(content, directory.describe(name))


def view_activations(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    """View a record batch's activations as (b, d_in) without a copy, slices included.

    `flatten()` honours the offset of a slice, where `.values` would give the whole parent.
    """
    activation = batch.column("activation")
    flat = activation.flatten().to_numpy(zero_copy_only=True)
    view: npt.NDArray[Any] = flat.reshape(batch.num_rows, activation.type.list_size)
    return view
