"""Orders and ranks of (group, activation, token) entries, each with a single sort.

Letters: m entries, g groups, f features, s sides, k places.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from raysae.scoring.tokens import IMAGE, TEXT, Int64Array

Float32Array = npt.NDArray[np.float32]

_LARGEST_BITS = 0x7FFFFFFF


def rank_entries(
    group_m: Int64Array, value_m: Float32Array, key_m: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Order entries by group, then value (highest first), then key; number them in their group.

    Positive floats sort as their bits do, so group and inverted value share one int64; only entries
    that tie in both are then ordered by key.

    Args:
        group_m: int64 (m,), from 0 below 2³¹.
        value_m: float32 (m,), above 0.
        key_m: int64 (m,), distinct within a group.

    Returns:
        int64 (m,) order, and int64 (m,) rank from 0 in its group of each entry in that order.
    """
    inverted_m = _LARGEST_BITS - value_m.view(np.int32).astype(np.int64)
    packed_m = (group_m << 32) | inverted_m
    order = np.argsort(packed_m)
    sorted_m = packed_m[order]
    same = sorted_m[1:] == sorted_m[:-1]
    if same.any():
        tied = np.zeros(len(order), dtype=bool)
        tied[1:] |= same
        tied[:-1] |= same
        entries = order[tied]
        order[tied] = entries[np.lexsort((key_m[entries], packed_m[entries]))]
    return order, ranks_in_runs(group_m[order])


def ranks_in_runs(value_m: Int64Array) -> Int64Array:
    """Number the entries of each run of equal values from 0."""
    start = np.ones(len(value_m), dtype=bool)
    start[1:] = value_m[1:] != value_m[:-1]
    index = np.arange(len(value_m))
    return index - np.maximum.accumulate(np.where(start, index, 0))


def per_token_top(token_m: torch.Tensor, value_m: torch.Tensor, limit: int) -> torch.Tensor:
    """Mark each token's `limit` highest entries, ties by the order in which they stand.

    Args:
        token_m: int (m,), ascending.
        value_m: float32 (m,), above 0.
        limit: Entries per token.

    Returns:
        bool (m,).
    """
    inverted_m = _LARGEST_BITS - value_m.view(torch.int32).long()
    order = torch.sort((token_m.long() << 32) | inverted_m, stable=True).indices
    # Tokens ascend before and after the sort, so a token's run starts at the same place.
    first_m = torch.searchsorted(token_m, token_m)
    top = torch.empty_like(order, dtype=torch.bool)
    top[order] = torch.arange(len(order), device=order.device) - first_m < limit
    return top


def split_sides(
    value_fk: Float32Array,
    row_fk: npt.NDArray[np.int32],
    side_p: npt.NDArray[np.uint8],
    depth: int,
) -> tuple[Float32Array, Int64Array]:
    """Take the first `depth` text and the first `depth` image tokens of each feature's joint list.

    Args:
        value_fk: float32 (f, k), activations, highest first.
        row_fk: int32 (f, k), pool rows, -1 where there is none.
        side_p: uint8 (p,), the side of each pool row.
        depth: Places per side.

    Returns:
        float32 (f, 2, depth) activations (-inf where there is none) and int64 rows (-1 likewise).
    """
    shape = (len(row_fk), 2, depth)
    value_fsk = np.full(shape, -np.inf, dtype=np.float32)
    row_fsk = np.full(shape, -1, dtype=np.int64)
    if len(side_p) == 0:
        return value_fsk, row_fsk
    for side in (TEXT, IMAGE):
        mine_fk = (row_fk >= 0) & (side_p[row_fk] == side)
        place_fk = np.cumsum(mine_fk, axis=1) - 1
        feature, place = np.nonzero(mine_fk & (place_fk < depth))
        target = (feature, side, place_fk[feature, place])
        value_fsk[target] = value_fk[feature, place]
        row_fsk[target] = row_fk[feature, place]
    return value_fsk, row_fsk
