"""The order in which training reads tokens that are computed while it runs.

Each rank reads shards of its own: the places r, r + W, … of every epoch's order of shards, for rank
r of W. They are cut into windows of `mix_shards` shards, of which two are in memory, and the rows
of a window are read in the order of `window_order`. With one rank these are the rows that
`ReadingOrder` names, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from raysae.activations.order import epoch_order, window_order
from raysae.activations.parts import ShardInMemory
from raysae.activations.reader import CachedTokens, gathered, room_for

WINDOWS_IN_MEMORY = 2
"""The one that is read and the one that is filled."""


class StreamPosition(NamedTuple):
    """How far a rank has read.

    Attributes:
        epoch: From 0.
        window: Which of the rank's windows in that epoch, from 0; beyond the last one stands for
            the first of the next epoch.
        rows: Rows of that window that were read.
    """

    epoch: int = 0
    window: int = 0
    rows: int = 0


class WindowPlan(NamedTuple):
    """Which shards one window of a rank has (s shards).

    Attributes:
        epoch: From 0.
        number: From 0 in the rank's epoch.
        shard_s: int64 (s,), in the epoch's order.
        key: uint64 (1,), the epoch's.
        place: The window's number among those of all ranks, which decides the order of its rows.
    """

    epoch: int
    number: int
    shard_s: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]
    place: int


@dataclass(frozen=True)
class StreamOrder:
    """Which shards a rank reads, and in which windows.

    Attributes:
        shards: Number of shards that are trained on, at least as many as there are ranks.
        seed: Decides the order.
        mix_shards: Shards of a window.
        rank: This rank.
        world_size: Number of ranks.
    """

    shards: int
    seed: int
    mix_shards: int
    rank: int = 0
    world_size: int = 1

    @property
    def shards_of_epoch(self) -> int:
        """Shards that this rank reads in an epoch."""
        return len(range(self.rank, self.shards, self.world_size))

    def windows(self, epoch: int) -> Iterator[WindowPlan]:
        """Yield this rank's windows in one epoch."""
        shard_s, key = epoch_order(self.shards, self.seed, epoch)
        mine = shard_s[self.rank :: self.world_size]
        for number, first in enumerate(range(0, len(mine), self.mix_shards)):
            place = number * self.world_size + self.rank
            yield WindowPlan(epoch, number, mine[first : first + self.mix_shards], key, place)

    def windows_from(self, start: StreamPosition) -> Iterator[WindowPlan]:
        """Yield this rank's windows without an end, the one of a position first."""
        for epoch in count(start.epoch):
            for window in self.windows(epoch):
                if (epoch, window.number) >= start[:2]:
                    yield window


class Window:
    """The tokens of one window, in memory.

    Args:
        plan: Which window it is.
        shards: Its shards, in the order of the plan.

    Attributes:
        plan: Which window it is.
        rows: Its tokens.
    """

    def __init__(self, plan: WindowPlan, shards: Sequence[ShardInMemory]) -> None:
        self.plan = plan
        self._shards = {shard.number: shard for shard in shards}
        self._start_s = np.cumsum([0, *(shard.rows for shard in shards)], dtype=np.int64)
        self.rows = int(self._start_s[-1])

    def read(self, first: int, stop: int) -> Piece:
        """Read the rows at some places of the window's order, sorted by shard and row."""
        place_n = np.arange(first, stop, dtype=np.int64)
        window_n = np.full_like(place_n, self.plan.place)
        size_n = np.full_like(place_n, self.rows)
        index_n = window_order(self.plan.key, window_n, place_n, size_n)
        slot_n = np.searchsorted(self._start_s, index_n, side="right") - 1
        return self._piece(self.plan.shard_s[slot_n], index_n - self._start_s[slot_n])

    def sample(self, tokens: int) -> CachedTokens:
        """Read tokens from all over the window, at even distances, its shards in their own order.

        A shard's own order of rows is random.
        """
        numbers = sorted(self._shards)
        ends = np.cumsum([self._shards[number].rows for number in numbers], dtype=np.int64)
        count_ = min(tokens, self.rows)
        token_n = np.arange(count_) * self.rows // max(1, count_)
        slot_n = np.searchsorted(ends, token_n, side="right")
        row_n = token_n - np.concatenate([[0], ends])[slot_n]
        return self._piece(np.asarray(numbers, dtype=np.int64)[slot_n], row_n).tokens

    def _piece(self, shard_n: npt.NDArray[np.int64], row_n: npt.NDArray[np.int64]) -> Piece:
        sorted_n = np.lexsort((row_n, shard_n))
        shard_n, row_n = shard_n[sorted_n], row_n[sorted_n]
        any_shard = next(iter(self._shards.values()))
        tokens = gathered(
            shard_n,
            row_n,
            self._shards.__getitem__,
            room_for(len(row_n), any_shard.d_in, any_shard.dtype),
            any_shard.dtype,
        )
        return Piece(tokens, shard_n, row_n)


class Piece(NamedTuple):
    """Rows of one window, and where they are from.

    Attributes:
        tokens: The rows (n,).
        shard_n: int64 (n,), their shards, ascending.
        row_n: int64 (n,), their numbers in these.
    """

    tokens: CachedTokens
    shard_n: npt.NDArray[np.int64]
    row_n: npt.NDArray[np.int64]


class StreamedBatch(NamedTuple):
    """One rank's slice of a batch.

    Attributes:
        tokens: The rows, sorted by shard and row as those of a cache are.
        position: What is read when this batch is.
    """

    tokens: CachedTokens
    position: StreamPosition


def streamed_batches(
    windows: Iterable[Window], size: int, skipped: int = 0
) -> Iterator[StreamedBatch]:
    """Cut batches from windows, for as long as there are any; the last rows may make no batch.

    No window is held on to when the next one is asked for.

    Args:
        windows: In the order of reading.
        size: Rows of a batch.
        skipped: Rows of the first window that were read before.
    """
    pieces: list[Piece] = []
    read = skipped
    for window in windows:
        while read < window.rows:
            stop = min(window.rows, read + size - sum(len(piece.row_n) for piece in pieces))
            pieces.append(window.read(read, stop))
            read = stop
            if sum(len(piece.row_n) for piece in pieces) == size:
                yield StreamedBatch(_joined(pieces), _after(window, read))
                pieces = []
        read = 0
        del window


def _after(window: Window, read: int) -> StreamPosition:
    """Return where it goes on after some rows of a window; after all of them with the next one."""
    epoch, number = window.plan.epoch, window.plan.number
    if read == window.rows:
        return StreamPosition(epoch, number + 1)
    return StreamPosition(epoch, number, read)


def _joined(pieces: Sequence[Piece]) -> CachedTokens:
    """Join the rows of several windows, sorted as those of one are."""
    if len(pieces) == 1:
        return pieces[0].tokens
    tokens = [piece.tokens for piece in pieces]
    shard_n = np.concatenate([piece.shard_n for piece in pieces])
    row_n = np.concatenate([piece.row_n for piece in pieces])
    return CachedTokens(
        torch.cat([one.acts_nd for one in tokens]),
        np.concatenate([one.modality_n for one in tokens]),
        np.concatenate([one.sample_n for one in tokens]),
        np.concatenate([one.position_n for one in tokens]),
        np.concatenate([one.token_id_n for one in tokens]),
        np.concatenate([one.norm_n for one in tokens]),
    ).take(np.lexsort((row_n, shard_n)))
