"""Slow, obvious twins of the activation cache's rules: loops over Python numbers."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

MASK = (1 << 64) - 1


def read_cache(path: Path) -> list[dict[str, Any]]:
    """Read a token file row by row; activations as the stored numbers."""
    rows = []
    with pa.OSFile(str(path)) as file:
        for batch in pa.ipc.open_stream(file):
            rows += batch.to_pylist()
    return rows


def mix(value: int) -> int:
    """SplitMix64's finaliser, in unbounded integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def shuffled_index(index: int, size: int, key: int, rounds: int) -> int:
    """Walk the Feistel network over base ⌈√size⌉ until it lands below the size."""
    base = math.isqrt(size - 1) + 1
    while True:
        left, right = divmod(index, base)
        state = key
        for number in range(rounds):
            state = mix((state + number) & MASK)
            left, right = right, (left + mix(state ^ right) % base) % base
        index = left * base + right
        if index < size:
            return index


def batch_rows(
    shard_rows: list[int], mix_shards: int, keys: list[tuple[int, int]], first: int, count: int
) -> list[tuple[int, int]]:
    """List a batch's (shard, row) by writing every epoch out in full.

    `keys` are each epoch's key for its shards and key for its windows.
    """
    sequence: list[tuple[int, int]] = []
    for shard_key, row_key in keys:
        n = len(shard_rows)
        order = [shuffled_index(i, n, shard_key, 6) for i in range(n)]
        for number, start in enumerate(range(0, n, mix_shards)):
            window = [
                (shard, row)
                for shard in order[start : start + mix_shards]
                for row in range(shard_rows[shard])
            ]
            key = mix(row_key ^ number)
            sequence += [window[shuffled_index(i, len(window), key, 6)] for i in range(len(window))]
    return sequence[first : first + count]


def stream_rows(
    shard_rows: list[int], mix_shards: int, keys: list[tuple[int, int]], rank: int, ranks: int
) -> list[tuple[int, int, int, int]]:
    """List (epoch, window, shard, row) of all that one rank reads, by writing it out in full.

    `keys` are as for `batch_rows`.
    """
    sequence = []
    for epoch, (shard_key, row_key) in enumerate(keys):
        n = len(shard_rows)
        order = [shuffled_index(i, n, shard_key, 6) for i in range(n)]
        mine = [shard for place, shard in enumerate(order) if place % ranks == rank]
        for number, start in enumerate(range(0, len(mine), mix_shards)):
            window = [
                (shard, row)
                for shard in mine[start : start + mix_shards]
                for row in range(shard_rows[shard])
            ]
            key = mix(row_key ^ (number * ranks + rank))
            places = [shuffled_index(i, len(window), key, 6) for i in range(len(window))]
            sequence += [(epoch, number, *window[place]) for place in places]
    return sequence


def balanced_counts(images: int, others: int, fraction: float, limit: int) -> tuple[int, int]:
    """Try every total, from the largest down, that both kinds can fill at this share."""
    for total in range(min(limit, images + others), -1, -1):
        if total * fraction <= images + 1e-9 and total * (1 - fraction) <= others + 1e-9:
            kept = min(images, round(fraction * total))
            return kept, min(others, total - kept)
    raise AssertionError("a total of 0 always fits")


def kept_by_norm(acts: list[list[float]], ratio: float) -> list[bool]:
    """Compare each row's norm with the median of the finite ones."""
    norms = [math.sqrt(sum(x * x for x in row)) for row in acts]
    finite = [norm for norm in norms if math.isfinite(norm)]
    median = statistics.median(finite) if finite else 0.0
    return [math.isfinite(norm) and norm <= ratio * median for norm in norms]


def bfloat16_to_float(bits: int) -> float:
    """Read bfloat16 bits as the upper half of an IEEE single."""
    return float(np.array([bits << 16], dtype=np.uint32).view(np.float32)[0])
