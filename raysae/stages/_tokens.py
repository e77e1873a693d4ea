"""Where a training rank's tokens come from: a cache, or the model itself while training runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from raysae.activations import CachedTokens
from raysae.sae import Ranks

START_SAMPLE_TOKENS = 8192
"""Tokens that the input scale and b_dec are estimated from."""

JUDGED_TOKENS = 32_768
"""Tokens that the finished SAE is judged by, at most."""


class RankTokens(Protocol):
    """One rank's tokens, for as long as it trains."""

    def start_sample(self) -> torch.Tensor:
        """Return some thousand hidden states (n, d_in), before the first batch."""
        ...

    def batches(self, first: int, stop: int) -> Iterator[CachedTokens]:
        """Yield this rank's slices of the batches number `first` to `stop` - 1."""
        ...

    def position(self) -> list[int]:
        """Return what another try needs to go on after the batch that was yielded last.

        It is nothing where a batch's number says all, else as many integers each time.
        """
        ...


class TokenSource(Protocol):
    """What a rank is given; it is pickled."""

    @property
    def d_in(self) -> int:
        """Width of a hidden state."""
        ...

    @property
    def held_out(self) -> int:
        """How many of the last shards the SAE is judged by instead of trained on."""
        ...

    def opened(
        self, ranks: Ranks, batch_tokens: int, positions: list[list[int]] | None
    ) -> AbstractContextManager[RankTokens]:
        """Give a rank's tokens.

        Args:
            ranks: This rank and the number of all.
            batch_tokens: Of a batch over all ranks.
            positions: What `RankTokens.position` returned in each rank of the try to go on with.
        """
        ...

    def judged(self, batch_tokens: int) -> Iterator[CachedTokens]:
        """Yield the tokens that the finished SAE is judged by, in batches of at most so many."""
        ...

    def told(self) -> dict[str, Any]:
        """Return what the SAE's metadata tell of the tokens, when it is trained.

        Raises:
            DataError: Too many rows could not be used.
        """
        ...


def held_out(shards: int) -> int:
    """Return how many shards are held out: a twentieth, at least one unless there is but one."""
    return 0 if shards == 1 else max(1, shards // 20)


def first_tokens(
    shards: Iterable[tuple[int, Callable[[int, int], CachedTokens]]], batch_tokens: int
) -> Iterator[CachedTokens]:
    """Yield the first `JUDGED_TOKENS` tokens of some shards.

    Args:
        shards: Of each its rows, and what reads those from one to another.
        batch_tokens: Tokens that are read at once, at most.
    """
    left = JUDGED_TOKENS
    for rows, read in shards:
        for start in range(0, min(rows, left), batch_tokens):
            tokens = read(start, min(start + batch_tokens, rows))
            yield tokens
            left -= len(tokens)
        if left <= 0:
            return
