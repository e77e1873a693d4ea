"""Training tokens straight from the model's actors, without a cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch

from raysae.activations import CachedTokens
from raysae.activations.batches import BATCHES_AHEAD
from raysae.activations.parts import ShardInMemory
from raysae.activations.reader import gathered, room_for
from raysae.activations.stream import (
    StreamedBatch,
    StreamOrder,
    StreamPosition,
    Window,
    streamed_batches,
)
from raysae.artifacts import WORK, ShardPlan
from raysae.artifacts.marks import read_marks
from raysae.errors import DataError, SettingsError
from raysae.sae import Ranks
from raysae.stages._capacity import Resources
from raysae.stages._hidden_states import Reading
from raysae.stages._pool import check_rejected
from raysae.stages._snapshots import record_snapshot
from raysae.stages._stream import ShardStream, StreamPlan, pools
from raysae.stages._stream_worker import MARKS, StreamTask
from raysae.stages._tokens import START_SAMPLE_TOKENS, RankTokens, first_tokens, held_out
from raysae.stages._windows import WindowFiller
from raysae.stages.chain import Chain
from raysae.stages.result import ShardTotals


@dataclass(frozen=True)
class StreamedSource:
    """A corpus whose hidden states are computed anew in every epoch.

    Attributes:
        plan: How they are computed.
        shards: All shards of the corpus.
        held_out: How many of the last shards the SAE is judged by instead of trained on.
        seed: Decides the order of reading.
        mix_shards: Shards that are mixed with one another.
        d_in: Width of a hidden state.
    """

    plan: StreamPlan
    shards: ShardPlan
    held_out: int
    seed: int
    mix_shards: int
    d_in: int

    @property
    def trained(self) -> int:
        """Number of shards that are trained on."""
        return len(self.shards) - self.held_out

    @contextmanager
    def opened(
        self, ranks: Ranks, batch_tokens: int, positions: list[list[int]] | None
    ) -> Iterator[RankTokens]:
        """Give a rank's tokens: those of shards of its own."""
        order = StreamOrder(self.trained, self.seed, self.mix_shards, ranks.rank, ranks.world_size)
        start = position_of(positions, ranks)
        stream = ShardStream(self.plan, partial(endless_tasks, order, self.shards, start))
        filler = WindowFiller(order, start, stream, self.check_after_epoch)
        rows = ranks.rows(batch_tokens)
        try:
            yield _StreamedTokens(filler, start, rows.stop - rows.start)
        finally:
            filler.stop()

    def judged(self, batch_tokens: int) -> Iterator[CachedTokens]:
        """Yield tokens that were held out; of a corpus of one shard some that were trained on."""
        first = self.trained if self.held_out else 0
        stream = ShardStream(self.plan, partial(judged_tasks, self.shards, first))
        shards = ((shard.tokens.rows, partial(_read, shard.tokens)) for shard in stream.shards())
        try:
            yield from first_tokens(shards, batch_tokens)
        finally:
            stream.stop()

    def told(self) -> dict[str, Any]:
        """Return what is told of the rows that were read.

        Raises:
            DataError: Too many of them could not be used.
        """
        totals = self._totals()
        self._check(totals)
        told = totals.to_json()
        rejections = told.pop("rejections")
        return {
            "rows": told["rows"],
            "rejected": told["rejected"],
            "rejections": rejections,
            "activations": {"name": None, "finished_at": "", "seconds": None, **told},
        }

    def check_after_epoch(self) -> bool:
        """Check the rejected rows if every shard was read once; return whether they all were.

        Raises:
            DataError: Too many of them could not be used.
        """
        read = sum(1 for _ in (self.plan.work / MARKS).entries())
        if read < self.trained:
            return False
        self._check(self._totals())
        return True

    def _totals(self) -> ShardTotals:
        names = (shard.name for shard in self.shards)
        states = read_marks(self.plan.work / MARKS, names)
        return ShardTotals.of(state.mark for state in states if state.mark is not None)

    def _check(self, totals: ShardTotals) -> None:
        limit = self.plan.run.max_rejected_fraction
        check_rejected("train", totals.counts, limit, totals.reasons)


def streamed_source(chain: Chain) -> StreamedSource:
    """Plan the pools that make the hidden states while training runs.

    Raises:
        SettingsError: There are too few shards for the ranks, or pools and ranks do not fit.
        DataError: The corpus has no row.
    """
    settings, train = chain.settings, chain.settings.train
    shards = chain.shards(chain.sae_corpus)
    if not shards:
        raise DataError("sae_corpus: has no row; name another corpus.")
    trained = len(shards) - held_out(len(shards))
    if trained < train.workers:
        raise SettingsError(
            f"train.workers: {train.workers} ranks need a shard each, but sae_corpus has {trained} "
            "to train on; lower train.workers or shards.max_rows."
        )
    record_snapshot(chain.sae_snapshot, chain.sae_corpus.snapshot)
    plan = StreamPlan(
        corpus=chain.sae_corpus,
        reading=Reading.of(settings),
        cache=settings.cache,
        run=pools(
            settings.run, train.workers, Resources(train.cpus_per_worker, train.gpus_per_worker)
        ),
        work=chain.sae.directory / WORK,
        pools=train.workers,
    )
    return StreamedSource(
        plan=plan,
        shards=shards,
        held_out=len(shards) - trained,
        seed=settings.sae.seed,
        mix_shards=settings.reading.mix_shards,
        d_in=chain.forward.d_in,
    )


class _StreamedTokens:
    """One rank's slices of the batches: the same number of tokens each time.

    Args:
        filler: Fills the windows.
        start: Where it begins.
        size: Tokens of a slice.
    """

    def __init__(self, filler: WindowFiller, start: StreamPosition, size: int) -> None:
        self._windows = filler.windows()
        self._position = start
        self._size = size

    def start_sample(self) -> torch.Tensor:
        """Read tokens from all over the first window, at even distances."""
        first = [next(self._windows)]
        sample = first[0].sample(START_SAMPLE_TOKENS).acts_nd
        self._windows = _with_first(first, self._windows)
        return sample

    def batches(self, first: int, stop: int) -> Iterator[CachedTokens]:
        """Yield this rank's slices, copied out of the windows ahead of their use."""
        batches = streamed_batches(self._windows, self._size, self._position.rows)
        reading = ThreadPoolExecutor(1, thread_name_prefix="batches")
        asked = (reading.submit(next, batches) for _ in range(first, stop))
        try:
            pending: deque[Future[StreamedBatch]] = deque(islice(asked, BATCHES_AHEAD))
            while pending:
                pending.extend(islice(asked, 1))
                tokens, self._position = pending.popleft().result()
                yield tokens
        finally:
            reading.shutdown(wait=False, cancel_futures=True)

    def position(self) -> list[int]:
        """Return epoch, window, and rows of it that were read."""
        return list(self._position)


def _with_first(first: list[Window], windows: Iterator[Window]) -> Iterator[Window]:
    """Yield a window that was taken, of which nobody else shall hold on to, and those after it."""
    yield first.pop()
    yield from windows


def position_of(positions: list[list[int]] | None, ranks: Ranks) -> StreamPosition:
    """Return where a rank goes on: where it was, or if others trained, where an epoch began."""
    if not positions:
        return StreamPosition()
    if len(positions) == ranks.world_size:
        return StreamPosition(*positions[ranks.rank])
    return StreamPosition(epoch=min(position[0] for position in positions))


def endless_tasks(
    order: StreamOrder, shards: ShardPlan, start: StreamPosition
) -> Iterator[StreamTask]:
    """Yield the shards of a rank's windows; each is told of in a mark when it is read first."""
    for plan in order.windows_from(start):
        for number in plan.shard_s.tolist():
            yield StreamTask(shards[number], number=number, marked=plan.epoch == 0)


def judged_tasks(shards: ShardPlan, first: int) -> Iterator[StreamTask]:
    """Yield the shards from one on."""
    for number in range(first, len(shards)):
        yield StreamTask(shards[number], number=number, marked=True)


def _read(shard: ShardInMemory, start: int, stop: int) -> CachedTokens:
    row_n = np.arange(start, stop, dtype=np.int64)
    shard_n = np.full_like(row_n, shard.number)
    return gathered(
        shard_n, row_n, lambda _: shard, room_for(len(row_n), shard.d_in, shard.dtype), shard.dtype
    )
