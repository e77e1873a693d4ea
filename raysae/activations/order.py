"""The order in which training reads a cache: a pure function of seed, step and batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raysae.activations.seeded import random_keys, shuffled_index
from raysae.errors import DataError, SettingsError
from raysae.splitmix import mix


class _Epoch(NamedTuple):
    """One epoch's order of shards (s shards, w windows).

    Attributes:
        key: uint64 scalar array (1,), the epoch's key.
        shard_s: int64 (s,), the shards in the order of reading.
        start_s: int64 (s + 1,), rows before each of them, and all rows.
        window_w: int64 (w + 1,), rows before each window of `mix_shards` shards, and all rows.
    """

    key: npt.NDArray[np.uint64]
    shard_s: npt.NDArray[np.int64]
    start_s: npt.NDArray[np.int64]
    window_w: npt.NDArray[np.int64]


class ReadingOrder:
    """Which rows make up each global batch.

    In every epoch the shards are permuted, cut into windows of `mix_shards` shards, and the rows of
    a window permuted among themselves, so that a batch mixes several shards and few files are open
    at once. An epoch is a permutation of all rows; a batch may begin in one epoch and end in the
    next, so none is short and no row is left out.

    Nothing depends on how many ranks there are: each takes its slice of the global batch. And
    nothing is stored: any step can be asked for at once, which makes a restart exact.

    Args:
        shard_rows: Rows of each shard.
        seed: Decides the order.
        mix_shards: Shards per window, at least 1.

    Raises:
        DataError: There is no row at all.
        SettingsError: `mix_shards` is below 1.
    """

    def __init__(self, shard_rows: Sequence[int], seed: int, mix_shards: int = 4) -> None:
        self._shard_rows = np.asarray(shard_rows, dtype=np.int64)
        self.seed = seed
        self.mix_shards = mix_shards
        self.total_rows = int(self._shard_rows.sum())
        if self.total_rows == 0:
            raise DataError("The activation cache has no rows; check what its job rejected.")
        if mix_shards < 1:
            raise SettingsError(f"mix_shards: must be 1 or more, got {mix_shards}.")
        self._epochs: dict[int, _Epoch] = {}

    def rows(
        self, step: int, global_batch: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows of one global batch.

        Args:
            step: The number of the batch, from 0.
            global_batch: Rows per batch over all ranks, the same in every step; it may exceed the
                rows of an epoch.

        Returns:
            (shard_n, row_n), both int64 (global_batch,): for each row of the batch, its shard and
            its number in that shard.
        """
        first = step * global_batch
        shard_n = np.empty(global_batch, dtype=np.int64)
        row_n = np.empty(global_batch, dtype=np.int64)
        done = 0
        while done < global_batch:
            epoch, offset = divmod(first + done, self.total_rows)
            count = min(global_batch - done, self.total_rows - offset)
            part = slice(done, done + count)
            shard_n[part], row_n[part] = self._rows_of_epoch(epoch, offset, count)
            done += count
        return shard_n, row_n

    def shards_ahead(self, step: int, global_batch: int, stop: int) -> list[int]:
        """Return the shards that a batch and those soon after it are read from.

        They are those of its windows and of the next one, if any batch before `stop` reaches that.
        """
        place, last = step * global_batch, (step + 1) * global_batch - 1
        ahead: list[int] = []
        while place <= last:
            shards, place = self._window_at(place)
            ahead += shards
        if place < stop * global_batch:
            ahead += self._window_at(place)[0]
        return ahead

    def _window_at(self, place: int) -> tuple[list[int], int]:
        """Return the shards of the window that a row is in, and the row after its last one.

        Rows are counted through all epochs.
        """
        number, offset = divmod(place, self.total_rows)
        epoch = self._epoch(number)
        window = int(np.searchsorted(epoch.window_w, offset, side="right")) - 1
        first = window * self.mix_shards
        shards = epoch.shard_s[first : first + self.mix_shards].tolist()
        stop = number * self.total_rows + int(epoch.window_w[window + 1])
        return [shard for shard in shards if self._shard_rows[shard]], stop

    def _rows_of_epoch(
        self, number: int, offset: int, count: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        epoch = self._epoch(number)
        place_n = np.arange(offset, offset + count, dtype=np.int64)
        # side="right" steps over windows and shards without rows.
        window_n = np.searchsorted(epoch.window_w, place_n, side="right") - 1
        start_n = epoch.window_w[window_n]
        size_n = epoch.window_w[window_n + 1] - start_n
        place_n = start_n + window_order(epoch.key, window_n, place_n - start_n, size_n)
        slot_n = np.searchsorted(epoch.start_s, place_n, side="right") - 1
        return epoch.shard_s[slot_n], place_n - epoch.start_s[slot_n]

    def _epoch(self, number: int) -> _Epoch:
        """Return an epoch's plan; two are kept, because a batch may straddle two epochs."""
        if number not in self._epochs:
            if len(self._epochs) >= 2:
                self._epochs.pop(min(self._epochs))
            self._epochs[number] = self._plan_epoch(number)
        return self._epochs[number]

    def _plan_epoch(self, number: int) -> _Epoch:
        shard_s, key = epoch_order(len(self._shard_rows), self.seed, number)
        start_s = np.concatenate(([0], np.cumsum(self._shard_rows[shard_s])))
        edges = np.append(np.arange(0, len(shard_s), self.mix_shards), len(shard_s))
        return _Epoch(key, shard_s, start_s, start_s[edges])


def epoch_order(
    shards: int, seed: int, epoch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """Return an epoch's order of shards, int64 (s,), and the key of its windows, uint64 (1,)."""
    key = random_keys(2, seed, epoch)
    number_s = np.arange(shards, dtype=np.int64)
    size_s, key_s = np.full_like(number_s, shards), np.broadcast_to(key[:1], number_s.shape)
    return shuffled_index(number_s, size_s, key_s), key[1:]


def window_order(
    key: npt.NDArray[np.uint64],
    window_n: npt.NDArray[np.int64],
    place_n: npt.NDArray[np.int64],
    size_n: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return which row of its window stands at a place, int64 (n,).

    Args:
        key: The epoch's, as `epoch_order` returned it.
        window_n: int64 (n,), the windows' numbers in the epoch.
        place_n: int64 (n,), places in the windows, below their sizes.
        size_n: int64 (n,), rows of each window.
    """
    return shuffled_index(place_n, size_n, mix(key ^ window_n.astype(np.uint64)))
