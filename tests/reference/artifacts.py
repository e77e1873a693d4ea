"""Slow, obvious twins of what raysae/artifacts computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def plan(file_rows: Sequence[int], rows_per_shard: int) -> list[tuple[int, int, int, int]]:
    """Cut files into shards row by row: (file, first row, one past the last, its ordinal)."""
    shards = []
    ordinal = 0
    for file_index, rows in enumerate(file_rows):
        current: list[int] = []
        for row in range(rows):
            current.append(row)
            if len(current) == rows_per_shard or row == rows - 1:
                shards.append((file_index, current[0], row + 1, ordinal))
                ordinal += len(current)
                current = []
    return shards


def rows_that_fit(worst_row_bytes: int, max_rows: int, max_bytes: int) -> int:
    """Add rows while they fit; one is always taken."""
    rows = 1
    while rows + 1 <= max_rows and (rows + 1) * worst_row_bytes <= max_bytes:
        rows += 1
    return rows


def same(one: Any, other: Any) -> bool:
    """Whether two JSON-like values are the same content: dictionaries without order, lists with it.

    Numbers of another type are another content: JSON writes 1, 1.0 and true differently.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)
