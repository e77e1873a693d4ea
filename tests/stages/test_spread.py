from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysae.stages._spread import spread_runs


def snapshot(file_rows: list[int]) -> Any:
    """What `spread_runs` asks of a corpus' snapshot."""
    firsts = [0, *np.cumsum(file_rows).tolist()]

    def locate(ordinal: int) -> tuple[int, int]:
        return next(
            (index, ordinal - first)
            for index, first in enumerate(firsts[:-1])
            if first <= ordinal < firsts[index + 1]
        )

    files = [SimpleNamespace(rows=rows) for rows in file_rows]
    return SimpleNamespace(rows=sum(file_rows), files=files, locate=locate)


@given(
    file_rows=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    wanted=st.integers(0, 200),
    run_rows=st.integers(1, 20),
)
def test_runs_are_disjoint_sorted_spread_and_as_many_as_wanted(
    file_rows: list[int], wanted: int, run_rows: int
) -> None:
    runs = list(spread_runs(snapshot(file_rows), wanted, run_rows))
    taken = [o for run in runs for o in range(run.first_ordinal, run.first_ordinal + run.rows)]
    rows = sum(file_rows)
    assert len(taken) == min(wanted or rows, rows)
    assert taken == sorted(set(taken))
    for run in runs:
        assert 0 < run.rows <= run_rows
        assert 0 <= run.start < run.stop <= file_rows[run.file_index]
        assert run.first_ordinal == sum(file_rows[: run.file_index]) + run.start
    # No part of the corpus is passed over that is longer than an even share.
    gaps = np.diff([-1, *taken, rows])
    share = -(-rows // -(-len(taken) // run_rows))
    assert gaps.max() <= share + 1


def test_the_runs_of_a_few_rows() -> None:
    runs = list(spread_runs(snapshot([3, 7]), 4, 2))
    assert [(r.file_index, r.start, r.stop, r.first_ordinal) for r in runs] == [
        (0, 0, 2, 0),
        (1, 2, 4, 5),
    ]
    assert [r.rows for r in spread_runs(snapshot([3, 7]), 0, 10)] == [3, 7]
    assert not list(spread_runs(snapshot([]), 5, 2))
