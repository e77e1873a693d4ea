"""Single tokens of a cache, by sample and position."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from raysae.activations.cached_shard import CachedShard
from raysae.activations.format import as_torch, numpy_type
from raysae.activations.mapped_shard import MappedShard, missing, open_shard
from raysae.activations.samples_table import read_samples
from raysae.storage import Directory

MAX_RANGES = 256
"""Parts of an object that are read one by one; for more of them the whole shard is fetched."""

_KEPT_INDICES = 64
_KEPT_SHARDS = 8


class _Index(NamedTuple):
    """Where the tokens of a shard are.

    Attributes:
        key_n: int64 (n,), ascending: sample · 2³² + position of each token.
        row_n: int32 (n,), its row in the token file.
    """

    key_n: npt.NDArray[np.int64]
    row_n: npt.NDArray[np.int32]


class TokenLookup:
    """Random access to a cache's hidden states.

    The samples files hold the way back from (sample, position) to a row. From an object store only
    the hidden states that are asked for are read, unless they are many or compressed.

    Args:
        directory: The cache.
        shards: As their marks describe them; a shard's number is its place in this list.
    """

    def __init__(self, directory: Directory, shards: Sequence[CachedShard]) -> None:
        self._directory = directory
        self._shards = tuple(shards)
        self._index = lru_cache(_KEPT_INDICES)(self._read_index)
        self._mapped = lru_cache(_KEPT_SHARDS)(self._map)

    def read(
        self,
        shard_n: npt.NDArray[np.int64],
        sample_n: npt.NDArray[np.int64],
        position_n: npt.NDArray[np.int64],
    ) -> torch.Tensor:
        """Return hidden states, (n, d_in), in the order given.

        Args:
            shard_n: Integers (n,), n > 0: numbers of shards.
            sample_n: Integers (n,): rows of their samples tables.
            position_n: Integers (n,): positions in the samples.

        Raises:
            IndexError: There is no such token, or it was not kept; the message names it.
            DataError: A file is missing or damaged.
        """
        first = self._shards[int(shard_n[0])]
        acts_nd = np.empty((len(shard_n), first.d_in), dtype=numpy_type(first.dtype))
        for shard in np.unique(shard_n).tolist():
            place_m = np.flatnonzero(shard_n == shard)
            row_m = self._rows(shard, sample_n[place_m], position_n[place_m])
            ascending_m = np.argsort(row_m, kind="stable")
            acts_nd[place_m[ascending_m]] = self._read_rows(shard, row_m[ascending_m])
        return as_torch(acts_nd, first.dtype)

    def __reduce__(self) -> tuple[type[TokenLookup], tuple[Directory, Sequence[CachedShard]]]:
        """Pickle what it is made of; what was read so far is read again."""
        return TokenLookup, (self._directory, self._shards)

    def find(self, sample_ids: Sequence[str]) -> list[tuple[int, int]]:
        """Return a shard's number and a row of its samples table for each of some sample ids.

        No index leads from an id to a shard: the samples tables are read from the first on, until
        all ids are found. One that is there twice is found where it is first.

        Raises:
            IndexError: There is no such sample; the message names it.
            DataError: A file is missing or damaged.
        """
        wanted = pa.array(sorted({*sample_ids}), pa.string())
        places: dict[str, tuple[int, int]] = {}
        for number, shard in enumerate(self._shards):
            if len(places) == len(wanted):
                break
            id_n = read_samples(self._directory, shard.samples).column("sample_id")
            for row in np.flatnonzero(pc.is_in(id_n, value_set=wanted).to_numpy()).tolist():
                places.setdefault(id_n[row].as_py(), (number, row))
        missing_id = next((one for one in sample_ids if one not in places), None)
        if missing_id is not None:
            raise IndexError(f"{self._directory} has no sample {missing_id!r}")
        return [places[one] for one in sample_ids]

    def positions(self, shard: int, sample: int) -> npt.NDArray[np.int64]:
        """Return the positions of a sample's kept tokens, ascending."""
        key_n = self._index(shard).key_n
        first, stop = np.searchsorted(key_n, [int(sample) << 32, (int(sample) + 1) << 32])
        return key_n[first:stop] & 0xFFFF_FFFF

    def _rows(
        self, shard: int, sample_m: npt.NDArray[np.int64], position_m: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        key_n, row_n = self._index(shard)
        wanted_m = (sample_m.astype(np.int64) << 32) + position_m
        place_m = np.searchsorted(key_n, wanted_m)
        found_m = place_m < len(key_n)
        found_m[found_m] = key_n[place_m[found_m]] == wanted_m[found_m]
        if not found_m.all():
            missing = int(np.flatnonzero(~found_m)[0])
            raise IndexError(
                f"{self._directory.describe(self._shards[shard].data)} has no token of sample "
                f"{sample_m[missing]} at position {position_m[missing]}: there is none, or it was "
                "not kept"
            )
        return row_n[place_m].astype(np.int64)

    def _read_index(self, shard: int) -> _Index:
        table = read_samples(self._directory, self._shards[shard].samples)
        positions = table.column("kept_positions").combine_chunks()
        rows = table.column("kept_rows").combine_chunks()
        kept_n = table.column("kept_tokens").to_numpy()
        sample_n = np.repeat(np.arange(table.num_rows, dtype=np.int64), kept_n)
        key_n = (sample_n << 32) + positions.flatten().to_numpy()
        return _Index(key_n, rows.flatten().to_numpy())

    def _read_rows(self, shard: int, row_m: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return the stored numbers of ascending rows, (m, d_in)."""
        about = self._shards[shard]
        acts_md = np.empty((len(row_m), about.d_in), dtype=numpy_type(about.dtype))
        if self._directory.is_local or not about.offsets or len(row_m) > MAX_RANGES:
            self._mapped(shard).gather(row_m, acts_md, {})
            return acts_md
        offset_m = np.asarray(about.offsets)[row_m // about.batch_rows]
        start_m = offset_m + row_m % about.batch_rows * acts_md.strides[0]
        # Neighbours are read together.
        edges = np.flatnonzero(np.diff(start_m) != acts_md.strides[0]) + 1
        runs = list(pairwise([0, *edges.tolist(), len(row_m)]))
        ranges = [
            (int(start_m[first]), int(start_m[stop - 1]) + acts_md.strides[0])
            for first, stop in runs
        ]
        try:
            parts = self._directory.read_ranges(about.data, ranges)
        except FileNotFoundError as error:
            raise missing(self._directory.describe(about.data)) from error
        for (first, stop), part in zip(runs, parts, strict=True):
            acts_md[first:stop] = np.frombuffer(part, acts_md.dtype).reshape(stop - first, -1)
        return acts_md

    def _map(self, shard: int) -> MappedShard:
        return open_shard(self._directory, self._shards[shard].data)
