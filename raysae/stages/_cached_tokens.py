"""Training tokens out of a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from raysae.activations import BatchReader, CachedTokens, CacheReader, ReadingOrder
from raysae.artifacts import Artifact
from raysae.errors import DataError
from raysae.sae import Ranks
from raysae.stages._tokens import START_SAMPLE_TOKENS, RankTokens, first_tokens, held_out
from raysae.stages.chain import Chain
from raysae.stages.result import COUNTED


@dataclass(frozen=True)
class CachedSource:
    """The files of a cache that have tokens.

    Attributes:
        cache: The artifact.
        data_files: Its token files.
        shard_rows: Rows of each.
        held_out: How many of the last files the SAE is judged by instead of trained on.
        seed: Decides the order of reading.
        mix_shards: Shards that are mixed with one another.
        d_in: Width of a hidden state.
    """

    cache: Artifact
    data_files: tuple[str, ...]
    shard_rows: tuple[int, ...]
    held_out: int
    seed: int
    mix_shards: int
    d_in: int

    @property
    def trained_rows(self) -> tuple[int, ...]:
        """Rows of the files that are trained on."""
        return self.shard_rows[: len(self.shard_rows) - self.held_out]

    @contextmanager
    def opened(
        self,
        ranks: Ranks,
        batch_tokens: int,
        positions: list[list[int]] | None,  # noqa: ARG002 - a batch's number says all
    ) -> Iterator[RankTokens]:
        """Give a rank's tokens: its slice of every batch, whatever the number of ranks."""
        yield _CachedTokens(self, ranks, batch_tokens)

    def reader(self) -> CacheReader:
        """Return what reads the files."""
        return CacheReader(self.cache.directory, self.data_files, self.shard_rows, self.mix_shards)

    def judged(self, batch_tokens: int) -> Iterator[CachedTokens]:
        """Yield tokens that were held out; of a cache of one file some that were trained on."""
        reader = self.reader()
        shards = range(len(self.trained_rows), len(self.shard_rows)) if self.held_out else [0]
        return first_tokens(
            ((self.shard_rows[shard], partial(_read, reader, shard)) for shard in shards),
            batch_tokens,
        )

    def told(self) -> dict[str, Any]:
        """Return what a report tells of the cache, so that a used-up cache can be removed."""
        metadata = self.cache.metadata()
        about = ("finished_at", "seconds", *COUNTED)
        return {
            "rows": metadata["rows"],
            "rejected": 0,
            "rejections": {},
            "activations": {
                "name": self.cache.name,
                **{name: metadata[name] for name in about},
            },
        }


def cached_source(chain: Chain) -> CachedSource:
    """Gather the cache's files from its metadata.

    Raises:
        DataError: The cache holds no token.
    """
    metadata = chain.activations.metadata()
    # A shard all of whose rows were rejected has nothing to train on or to be judged by.
    listed = zip(metadata["data_files"], metadata["data_rows"], strict=True)
    shards = [(name, rows) for name, rows in listed if rows]
    if not shards:
        raise DataError(
            f"train: the cache {chain.activations.directory} holds no token; keep more of them "
            "with other cache settings."
        )
    return CachedSource(
        cache=chain.activations,
        data_files=tuple(name for name, _ in shards),
        shard_rows=tuple(rows for _, rows in shards),
        held_out=held_out(len(shards)),
        seed=chain.settings.sae.seed,
        mix_shards=chain.settings.reading.mix_shards,
        d_in=metadata["d_in"],
    )


class _CachedTokens:
    """One rank's slices of the batches."""

    def __init__(self, source: CachedSource, ranks: Ranks, batch_tokens: int) -> None:
        self._reader = source.reader()
        self._trained_rows = source.trained_rows
        order = ReadingOrder(source.trained_rows, source.seed, source.mix_shards)
        self._batches = BatchReader(self._reader, order, batch_tokens, ranks.rows(batch_tokens))

    def start_sample(self) -> torch.Tensor:
        """Read tokens from all over the cache, at even distances; a shard's order is random."""
        return _spread(self._reader, self._trained_rows).acts_nd

    def batches(self, first: int, stop: int) -> Iterator[CachedTokens]:
        """Yield this rank's slices of the batches, read ahead of their use."""
        return self._batches.batches(first, stop)

    def position(self) -> list[int]:
        """Return nothing: a batch's number says all."""
        return []


def _spread(reader: CacheReader, shard_rows: Sequence[int]) -> CachedTokens:
    ends = np.cumsum(shard_rows, dtype=np.int64)
    count = min(START_SAMPLE_TOKENS, int(ends[-1]))
    token_n = np.arange(count) * int(ends[-1]) // count
    shard_n = np.searchsorted(ends, token_n, side="right")
    return reader.read(shard_n, token_n - np.concatenate([[0], ends])[shard_n])


def _read(reader: CacheReader, shard: int, start: int, stop: int) -> CachedTokens:
    return reader.read_rows(shard, np.arange(start, stop))
