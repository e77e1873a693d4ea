"""The places that tokens compete for: one short ranked list per group.

Letters: g groups, k places of a group, m entries, p tokens in the pool.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raysae.scoring.ranking import rank_entries
from raysae.scoring.tokens import Int64Array

Float32Array = npt.NDArray[np.float32]


class RankedGroups(NamedTuple):
    """New lists for some groups: int64 (g,), float32 (g, k), int32 (g, k)."""

    group_g: Int64Array
    value_gk: Float32Array
    row_gk: npt.NDArray[np.int32]


class RankTable:
    """For each group its highest entries, by value, then token key.

    Attributes:
        value_gk: float32 (g, k), activations in descending order, -inf where a place is free.
        row_gk: int32 (g, k), pool rows, -1 where a place is free.
    """

    def __init__(self, n_groups: int, depth: int) -> None:
        self.value_gk: Float32Array = np.full((n_groups, depth), -np.inf, dtype=np.float32)
        self.row_gk: npt.NDArray[np.int32] = np.full((n_groups, depth), -1, dtype=np.int32)

    def floor_g(self) -> Float32Array:
        """Return the value below which an entry cannot win a place, float32 (g,)."""
        return np.ascontiguousarray(self.value_gk[:, -1])

    def rank(
        self,
        group_m: Int64Array,
        value_m: Float32Array,
        key_m: Int64Array,
        row_m: Int64Array,
        key_p: Int64Array,
    ) -> RankedGroups:
        """Let entries compete with those that are there, without writing the outcome.

        Args:
            group_m: int64 (m,).
            value_m: float32 (m,), above 0.
            key_m: int64 (m,), token keys, which order equal values.
            row_m: int (m,), what to write into `row_gk` for an entry that wins a place.
            key_p: int64 (p,), the keys of the rows that the table holds now.

        Returns:
            The new lists of every group in `group_m`.
        """
        n_groups, depth = self.row_gk.shape
        touched = np.flatnonzero(np.bincount(group_m, minlength=n_groups))
        old_row = self.row_gk[touched]
        held = old_row >= 0
        old_row = old_row[held]
        groups = np.concatenate([group_m, np.repeat(touched, held.sum(axis=1))])
        values = np.concatenate([value_m, self.value_gk[touched][held]])
        keys = np.concatenate([key_m, key_p[old_row]])
        rows = np.concatenate([row_m, old_row])

        order, rank_m = rank_entries(groups, values, keys)
        # Sorted by group, so a new group starts wherever the rank is back at 0.
        line_m = np.cumsum(rank_m == 0) - 1
        wins = rank_m < depth
        target = (line_m[wins], rank_m[wins])
        value_gk = np.full((len(touched), depth), -np.inf, dtype=np.float32)
        row_gk = np.full((len(touched), depth), -1, dtype=np.int32)
        value_gk[target] = values[order[wins]]
        row_gk[target] = rows[order[wins]]
        return RankedGroups(touched, value_gk, row_gk)

    def write(self, ranked: RankedGroups) -> None:
        """Replace the lists of these groups."""
        self.value_gk[ranked.group_g] = ranked.value_gk
        self.row_gk[ranked.group_g] = ranked.row_gk

    def entries(self) -> tuple[Int64Array, Float32Array, Int64Array]:
        """Return group, value and pool row of every place that is taken, by group and rank."""
        group_m, place_m = np.nonzero(self.row_gk >= 0)
        row_m = self.row_gk[group_m, place_m].astype(np.int64)
        return group_m, self.value_gk[group_m, place_m], row_m

    def live_rows(self) -> Int64Array:
        """Return the pool rows that some place refers to, ascending."""
        return np.flatnonzero(np.bincount(self.row_gk[self.row_gk >= 0]))

    def renumber(self, rows: Int64Array, n_rows: int) -> None:
        """Follow a pool of `n_rows` rows that is about to keep `rows`, in that order."""
        new_row = np.full(n_rows + 1, -1, dtype=np.int32)
        new_row[rows] = np.arange(len(rows), dtype=np.int32)
        # A free place holds -1, which reads the last entry: -1 again.
        self.row_gk = new_row[self.row_gk]
