"""Shards: the unit of work, of retry and of completion. How a corpus is cut is a pure function."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

NAME_DIGITS = 5
"""Digits of a shard's number, at least; names of one plan sort as their numbers do."""


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """A row range of one corpus file.

    Attributes:
        name: Unique in the artifact and sortable: `shard-00000`.
        file_index: Which file of the snapshot.
        start: First row in that file.
        stop: One past the last row.
        first_ordinal: Number of `start` in the whole snapshot.
    """

    name: str
    file_index: int
    start: int
    stop: int
    first_ordinal: int

    @property
    def rows(self) -> int:
        """Number of rows in the shard."""
        return self.stop - self.start

    @property
    def ordinals(self) -> range:
        """The numbers of its rows in the whole snapshot."""
        return range(self.first_ordinal, self.first_ordinal + self.rows)


def rows_per_shard(worst_row_bytes: int, max_rows: int, max_bytes: int) -> int:
    """Return how many rows fit a shard even if each is as large as a row can be; at least one.

    Args:
        worst_row_bytes: Output bytes of the largest possible row.
        max_rows: Rows in a shard, at most.
        max_bytes: Output bytes of a shard, at most, unless a single row is larger.
    """
    return max(1, min(max_rows, max_bytes // max(1, worst_row_bytes)))


class ShardPlan(Sequence[ShardSpec]):
    """The shards of a snapshot, in order; computed when asked for, so that 10⁵ cost no memory.

    Each file is cut from its first row into pieces of `rows_per_shard`; no shard spans two files.

    Args:
        file_rows: Rows of each file, in snapshot order.
        rows_per_shard: See `rows_per_shard`.
    """

    def __init__(self, file_rows: Sequence[int], rows_per_shard: int) -> None:
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard must be at least 1, got {rows_per_shard}")
        self.rows_per_shard = rows_per_shard
        self._file_rows = list(file_rows)
        self._row_ends = list(accumulate(self._file_rows))
        self._shard_ends = list(accumulate(-(-rows // rows_per_shard) for rows in self._file_rows))
        self._digits = max(NAME_DIGITS, len(str(max(0, len(self) - 1))))

    def __len__(self) -> int:
        return self._shard_ends[-1] if self._shard_ends else 0

    @overload
    def __getitem__(self, index: int) -> ShardSpec: ...
    @overload
    def __getitem__(self, index: slice) -> list[ShardSpec]: ...

    def __getitem__(self, index: int | slice) -> ShardSpec | list[ShardSpec]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"shard {index} of {len(self)}")
        file_index = bisect_right(self._shard_ends, index)
        earlier_shards = self._shard_ends[file_index - 1] if file_index else 0
        rows = self._file_rows[file_index]
        start = (index - earlier_shards) * self.rows_per_shard
        return ShardSpec(
            name=f"shard-{index:0{self._digits}d}",
            file_index=file_index,
            start=start,
            stop=min(start + self.rows_per_shard, rows),
            first_ordinal=self._row_ends[file_index] - rows + start,
        )
