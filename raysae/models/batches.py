"""Batches by length under a budget of padded tokens: pure functions of the lengths."""

from __future__ import annotations

from collections.abc import Sequence

MAX_PADDING = 0.1
"""Share of a batch's tokens that may be padding. Lengths that vary by a factor of ten then make
about a dozen batches more than the budget alone would."""


def length_batches(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group sequences of like length, longest first, so that little of a batch is padding.

    A batch of b sequences costs b × (its longest) padded tokens, of which at most `MAX_PADDING` are
    padding. Equal lengths keep their order, so the result is a function of the arguments alone.

    Args:
        lengths: Tokens of each sequence, each at least 1.
        token_budget: Most padded tokens of a batch. A sequence longer than that has a batch to
            itself.

    Returns:
        Indices into `lengths`; every index occurs once.
    """
    batches: list[list[int]] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        used += lengths[index]
        # Longest first: the first sequence of a batch sets the width of all of its rows.
        padded = (len(batches[-1]) + 1) * lengths[batches[-1][0]] if batches else 0
        if 0 < padded <= token_budget and used >= (1 - MAX_PADDING) * padded:
            batches[-1].append(index)
        else:
            batches.append([index])
            used = lengths[index]
    return batches


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Return the share of padded tokens among all tokens that the batches compute, in [0, 1)."""
    computed = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    used = sum(lengths[i] for batch in batches for i in batch)
    return 1.0 - used / computed if computed else 0.0
