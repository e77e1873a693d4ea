"""Read a cache: rows of memory-mapped shards, in any order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from raysae.activations.format import as_torch, numpy_type
from raysae.activations.mapped_shard import AGAIN, COLUMNS, MappedShard, open_shard, read_ahead
from raysae.errors import DataError
from raysae.storage import Directory


class TokenRows(Protocol):
    """A shard's tokens, wherever they lie."""

    def gather(
        self,
        row_m: npt.NDArray[np.int64],
        acts_md: npt.NDArray[Any],
        columns: Mapping[str, npt.NDArray[Any]],
    ) -> None:
        """Copy rows into a result; see `MappedShard.gather`."""
        ...


OPEN_SHARDS = 32
"""Shards mapped at a time, far from any limit on files, unless the reading order mixes more."""


@dataclass(frozen=True)
class CachedTokens:
    """Rows of a cache, copied out of it.

    Attributes:
        acts_nd: (n, d_in), the hidden states in their own dtype, on the CPU.
        modality_n: uint8 (n,).
        sample_n: int32 (n,), row in the samples table of the token's own shard.
        position_n: int32 (n,), position inside the sample.
        token_id_n: int32 (n,).
        norm_n: float32 (n,), Euclidean norm of the hidden state.
    """

    acts_nd: torch.Tensor
    modality_n: npt.NDArray[np.uint8]
    sample_n: npt.NDArray[np.int32]
    position_n: npt.NDArray[np.int32]
    token_id_n: npt.NDArray[np.int32]
    norm_n: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.position_n)

    def take(self, index_m: npt.NDArray[np.int64]) -> CachedTokens:
        """Return the rows at `index_m`, in that order."""
        return CachedTokens(
            self.acts_nd[torch.from_numpy(index_m)],
            self.modality_n[index_m],
            self.sample_n[index_m],
            self.position_n[index_m],
            self.token_id_n[index_m],
            self.norm_n[index_m],
        )


def room_for(rows: int, d_in: int, dtype: str) -> npt.NDArray[Any]:
    """Return memory for hidden states, (rows, d_in), in the stored type."""
    return np.empty((rows, d_in), dtype=numpy_type(dtype))


def gathered(
    shard_n: npt.NDArray[np.int64],
    row_n: npt.NDArray[np.int64],
    shard_of: Callable[[int], TokenRows],
    acts_nd: npt.NDArray[Any],
    dtype: str,
) -> CachedTokens:
    """Copy rows of several shards.

    Args:
        shard_n: int64 (n,), each row's shard, ascending.
        row_n: int64 (n,), its number in that shard, ascending in each.
        shard_of: Returns a shard by its number.
        acts_nd: (n, d_in), takes the hidden states, in the stored type.
        dtype: Their dtype.
    """
    columns = {name: np.empty(len(row_n), dtype=kind) for name, kind in COLUMNS.items()}
    for shard in np.unique(shard_n):
        part = slice(*np.searchsorted(shard_n, [shard, shard + 1]))
        parts = {name: column_n[part] for name, column_n in columns.items()}
        shard_of(int(shard)).gather(row_n[part], acts_nd[part], parts)
    return CachedTokens(
        as_torch(acts_nd, dtype),
        columns["modality"],
        columns["sample"],
        columns["position"],
        columns["token_id"],
        columns["norm"],
    )


class CacheReader:
    """The finished shards of one cache.

    Shards are mapped into memory when they are first read, the least recently read are unmapped;
    rows are copied once, from the system's page cache into the result. Not safe for threads; a
    pickled reader opens its shards anew.

    Args:
        directory: The cache.
        data_files: Names of its token files; a shard's number is its place in this list.
        shard_rows: Rows of each, as the done marks say. Without them every file's framing is read
            once at the start; with them nothing but the first file is opened, and a file that has
            another number of rows is reported when it is read.
        mix_shards: Shards that a batch is read from: so many and more are mapped at a time.

    Attributes:
        d_in: Width of the hidden states.
        dtype: `float32`, `float16` or `bfloat16`.
        shard_rows: Rows of each shard.

    Raises:
        DataError: No file, a missing or damaged one, or shards that do not fit together.
    """

    def __init__(
        self,
        directory: Directory,
        data_files: Sequence[str],
        shard_rows: Sequence[int] | None = None,
        mix_shards: int = 1,
    ) -> None:
        if not data_files:
            raise DataError(f"{directory}: the cache has no shard; check what its job rejected.")
        self._directory = directory
        self._data_files = tuple(data_files)
        self._open: OrderedDict[int, MappedShard] = OrderedDict()
        self._open_shards = max(OPEN_SHARDS, 2 * mix_shards)
        first = open_shard(directory, data_files[0])
        self.d_in, self.dtype = first.d_in, first.dtype
        self.shard_rows: tuple[int, ...] = ()
        if shard_rows is None:
            shard_rows = [self._shard(number).rows for number in range(len(data_files))]
        self.shard_rows = tuple(int(rows) for rows in shard_rows)

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(self.shard_rows)

    def read_rows(self, shard: int, rows: npt.ArrayLike) -> CachedTokens:
        """Read rows of one shard, in the order given; a row may be asked for more than once.

        Args:
            shard: The shard's number.
            rows: Integers (n,), each below the shard's rows.

        Raises:
            DataError: The shard is missing or damaged.
            IndexError: There is no such row.
        """
        row_n = np.asarray(rows, dtype=np.int64)
        tokens = self.read(np.full(len(row_n), shard, dtype=np.int64), row_n)
        if np.all(np.diff(row_n) >= 0):
            return tokens
        return tokens.take(np.argsort(np.argsort(row_n, kind="stable"), kind="stable"))

    def read(
        self,
        shard_n: npt.NDArray[np.int64],
        row_n: npt.NDArray[np.int64],
        acts_nd: npt.NDArray[Any] | None = None,
    ) -> CachedTokens:
        """Read a batch, such as `ReadingOrder.rows` names it, sorted by shard and row.

        A batch is a set of rows to training, and sorted rows are read about twice as fast. The
        slice of a rank must therefore be cut before reading.

        Args:
            shard_n: int64 (n,), each row's shard.
            row_n: int64 (n,), its number in that shard.
            acts_nd: (n, d_in), takes the hidden states, in the stored type; new memory by default,
                which takes the system longer to make than the rows to be copied.

        Raises:
            DataError: A shard is missing or damaged.
            IndexError: There is no such row.
        """
        sorted_n = np.lexsort((row_n, shard_n))
        if acts_nd is None:
            acts_nd = room_for(len(row_n), self.d_in, self.dtype)
        return gathered(shard_n[sorted_n], row_n[sorted_n], self._shard, acts_nd, self.dtype)

    def read_ahead(self, shard: int) -> None:
        """Bring a shard to this machine and towards its memory; safe in another thread.

        Raises:
            DataError: It is missing or damaged.
        """
        read_ahead(self._directory, self._data_files[shard])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def _shard(self, number: int) -> MappedShard:
        shard = self._open.get(number)
        if shard is None:
            shard = self._map(number)
            if len(self._open) >= self._open_shards:
                self._open.popitem(last=False)
            self._open[number] = shard
        self._open.move_to_end(number)
        return shard

    def _map(self, number: int) -> MappedShard:
        name = self._data_files[number]
        shard, path = open_shard(self._directory, name), self._directory.describe(name)
        if (shard.d_in, shard.dtype) != (self.d_in, self.dtype):
            raise DataError(
                f"{path} holds {shard.dtype} of width {shard.d_in}, the first shard {self.dtype} "
                f"of width {self.d_in}; a cache's shards must be alike: {AGAIN}"
            )
        if self.shard_rows and shard.rows != self.shard_rows[number]:
            raise DataError(
                f"{path} has {shard.rows} rows, its mark says {self.shard_rows[number]}; {AGAIN}"
            )
        return shard
