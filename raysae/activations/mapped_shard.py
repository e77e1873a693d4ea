"""One token file, mapped into memory."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysae.activations.format import (
    COMPRESSED_SUFFIX,
    is_whole,
    read_tokens_schema,
    tokens_schema,
)
from raysae.errors import DataError
from raysae.storage import Directory

AGAIN = "delete it and run the job again, which makes this shard anew."

_PAGE_BYTES = 4096

_PIECE_BYTES = 128 << 10
"""Of a copy out of a mapped file. The C library looks at a copy's end first; beyond what the system
reads ahead, 128 KiB where nothing else is set, that ends its reading ahead of one who goes through
the file."""


COLUMNS: Mapping[str, npt.DTypeLike] = MappingProxyType(
    {
        "sample": np.int32,
        "position": np.int32,
        "token_id": np.int32,
        "modality": np.uint8,
        "norm": np.float32,
    }
)
"""The columns beside the activation, with their numpy types."""


class MappedShard:
    """A token file whose activations are views of the mapped file: opening copies none of them.

    The other columns, 17 bytes a row, are copied, so that they need not be looked up by batch.

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
            with pa.ipc.open_stream(pa.BufferReader(content)) as stream:
                self.d_in, self.dtype, _ = read_tokens_schema(stream.schema, where)
                batches = list(stream)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(where, error) from error
        if not is_whole(content):
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
                _take(acts_bd, row_m[start:stop] - first, acts_md[start:stop])
        for name, column_m in columns.items():
            np.take(self._columns[name], row_m, out=column_m, mode="clip")


def _take(
    acts_bd: npt.NDArray[Any], index_k: npt.NDArray[np.int64], acts_kd: npt.NDArray[Any]
) -> None:
    """Copy rows, ascending and all of them there."""
    if np.all(np.diff(index_k) == 1):
        from_kd = acts_bd[index_k[0] : index_k[-1] + 1]
        rows = max(1, _PIECE_BYTES // from_kd.strides[0])
        for start in range(0, len(from_kd), rows):
            np.copyto(acts_kd[start : start + rows], from_kd[start : start + rows])
    else:
        # mode="clip" writes straight into `out`.
        np.take(acts_bd, index_k, axis=0, out=acts_kd, mode="clip")


def open_shard(directory: Directory, name: str) -> MappedShard:
    """Map a cache's token file, or what it is unpacked to on this machine if it is compressed.

    Raises:
        DataError: It is missing, damaged, cut short, or of another format.
        StorageError: A compressed one holds other bytes than its name says.
    """
    return MappedShard(_map(directory, name), directory.describe(name))


def read_ahead(directory: Directory, name: str) -> None:
    """Bring what `open_shard` maps to this machine and into its memory, from first to last byte.

    Raises:
        DataError: As `open_shard`, of what is seen without opening it.
    """
    content = np.frombuffer(_map(directory, name), np.uint8)
    # What is advised (posix_fadvise, madvise) is bounded by the device's window; a look is not.
    content[::_PAGE_BYTES].max(initial=0)


def _map(directory: Directory, name: str) -> pa.Buffer:
    where = directory.describe(name)
    try:
        if name.endswith(COMPRESSED_SUFFIX):
            return directory.map_made(name, "unpacked", _unpack)
        return directory.map(name)
    except FileNotFoundError as error:
        raise missing(where) from error
    except pa.ArrowException as error:
        raise _damaged(where, error) from error
    except OSError as error:
        if error.errno is None:  # Arrow's, of what it reads, and not the system's
            raise _damaged(where, error) from error
        raise


def _unpack(content: pa.Buffer, path: Path) -> None:
    """Write a compressed token file's tokens uncompressed, so that they can be mapped."""
    with pa.ipc.open_stream(pa.BufferReader(content)) as stream, path.open("wb") as file:
        d_in, dtype, _ = read_tokens_schema(stream.schema, str(path))
        schema = tokens_schema(d_in, dtype)
        with pa.ipc.new_stream(file, schema) as unpacked:
            for batch in stream:
                unpacked.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
    if not is_whole(content):
        raise pa.ArrowInvalid("it was cut short")


def missing(where: str) -> DataError:
    """Say that a token file is not there."""
    return DataError(f"{where} is missing; run the job again, which makes it anew.")


def _damaged(where: str, error: Exception) -> DataError:
    return DataError(f"{where} cannot be read ({str(error).splitlines()[0]}); {AGAIN}")


def view_activations(batch: pa.RecordBatch) -> npt.NDArray[Any]:
    """View a record batch's activations as (b, d_in) without a copy, slices included.

    `flatten()` honours the offset of a slice, where `.values` would give the whole parent.
    """
    activation = batch.column("activation")
    flat = activation.flatten().to_numpy(zero_copy_only=True)
    view: npt.NDArray[Any] = flat.reshape(batch.num_rows, activation.type.list_size)
    return view
