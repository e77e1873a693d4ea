"""Orders and ranks against sorting by tuples."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.scoring.ranking import per_token_top, rank_entries, ranks_in_runs

VALUES = [1e-38, 0.25, 1.0, 1.5, 3e38, float("inf")]
entries = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(VALUES)), max_size=40)


@settings(deadline=None)
@given(entries, st.randoms(use_true_random=False))
def test_order_and_rank(rows: list[tuple[int, float]], random) -> None:
    keys = random.sample(range(10**12), len(rows))
    group = np.array([row[0] for row in rows], dtype=np.int64)
    value = np.array([row[1] for row in rows], dtype=np.float32)
    order, rank = rank_entries(group, value, np.array(keys, dtype=np.int64))
    expected = sorted(range(len(rows)), key=lambda m: (group[m], -value[m], keys[m]))
    assert order.tolist() == expected
    groups = [group[m] for m in expected]
    assert rank.tolist() == [m - groups.index(g) for m, g in enumerate(groups)]


def test_runs() -> None:
    assert ranks_in_runs(np.array([4, 4, 1, 4, 4, 4])).tolist() == [0, 1, 0, 0, 1, 2]
    assert ranks_in_runs(np.empty(0, dtype=np.int64)).tolist() == []


@settings(deadline=None)
@given(entries, st.integers(1, 4))
def test_per_token_top(rows: list[tuple[int, float]], limit: int) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    token = torch.tensor([row[0] for row in rows], dtype=torch.int32)
    value = torch.tensor([row[1] for row in rows], dtype=torch.float32)
    got = per_token_top(token, value, limit).tolist()
    for m, (row_token, row_value) in enumerate(rows):
        before = sum(
            other_token == row_token
            and (other_value > row_value or (other_value == row_value and o < m))
            for o, (other_token, other_value) in enumerate(rows)
        )
        assert got[m] == (before < limit)
