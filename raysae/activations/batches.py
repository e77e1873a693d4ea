"""Training batches of a cache, read ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from raysae.activations.order import ReadingOrder
from raysae.activations.reader import CachedTokens, CacheReader, room_for
from raysae.storage.objects import PIECE_BYTES, RANGES_AT_ONCE

BATCHES_AHEAD = 2
"""Batches that are read while one is in use."""

_BATCHES_IN_MEMORY = BATCHES_AHEAD + 1
"""The one in use is the next to be read into: it is asked for when its user is done with it."""

SHARDS_AT_ONCE = 2
"""Shards that are brought here at the same time; of an object each by many requests at once."""


def bytes_ahead(rows: int, row_bytes: int, *, is_local: bool) -> int:
    """Return the bytes that a `BatchReader` holds at most, the batch in use included.

    Args:
        rows: Rows of a slice.
        row_bytes: Bytes of a hidden state.
        is_local: Whether the storage is this machine's, and nothing is on its way.
    """
    batches = _BATCHES_IN_MEMORY * rows * row_bytes
    return batches + (0 if is_local else SHARDS_AT_ONCE * RANGES_AT_ONCE * PIECE_BYTES)


class BatchReader:
    """One rank's slices of the global batches, in order.

    A thread copies the rows of the next batches out of the shards while one is in use. Others bring
    the shards of the next window to this machine: from an object store into its cache, from a disk
    into memory, in the order of the file, where rows alone would be read in random order.

    Args:
        reader: The cache; nobody else may use it meanwhile, nor the order.
        order: Which rows make up each batch.
        global_batch: Rows per batch over all ranks.
        mine: The slice of each batch that is wanted.
    """

    def __init__(
        self, reader: CacheReader, order: ReadingOrder, global_batch: int, mine: slice
    ) -> None:
        self._reader = reader
        self._order = order
        self._global_batch = global_batch
        self._mine = mine
        self._n_rows = len(range(global_batch)[mine])
        self._memory: deque[npt.NDArray[Any]] = deque()
        self._ahead: list[int] = []

    def batches(self, first: int, stop: int) -> Iterator[CachedTokens]:
        """Yield the slices of batches number `first` to `stop` - 1.

        The hidden states of a batch are good until the next one is asked for: all are read into the
        same memory by turns.

        Raises:
            DataError: A shard is missing or damaged.
        """
        self._ahead = []
        self._memory = deque(
            room_for(self._n_rows, self._reader.d_in, self._reader.dtype)
            for _ in range(_BATCHES_IN_MEMORY)
        )
        pending: deque[Future[CachedTokens]] = deque()
        with (
            ThreadPoolExecutor(SHARDS_AT_ONCE, thread_name_prefix="shards") as fetching,
            ThreadPoolExecutor(1, thread_name_prefix="batches") as reading,
        ):
            try:
                for step in range(first, stop):
                    pending.append(reading.submit(self._read, step, stop, fetching))
                    if len(pending) > BATCHES_AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                reading.shutdown(cancel_futures=True)
                fetching.shutdown(cancel_futures=True)

    def _read(self, step: int, stop: int, fetching: ThreadPoolExecutor) -> CachedTokens:
        ahead = self._order.shards_ahead(step, self._global_batch, stop)
        for shard in ahead:
            if shard not in self._ahead:
                # Whatever fails there fails again, with its reason, where the rows are read.
                fetching.submit(self._reader.read_ahead, shard)
        self._ahead = ahead
        shard_n, row_n = self._order.rows(step, self._global_batch)
        self._memory.rotate()
        return self._reader.read(shard_n[self._mine], row_n[self._mine], self._memory[0])
