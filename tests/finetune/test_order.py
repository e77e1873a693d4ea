from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysae.finetune.order import reading_order, split_rows

SEEDS = st.integers(0, 2**31)


@given(rows=st.integers(2, 300), fraction=st.floats(0, 0.99), seed=SEEDS)
def test_every_row_is_either_trained_on_or_held_out(rows, fraction, seed):
    train, held_out = split_rows(rows, fraction, seed)
    assert sorted([*train, *held_out]) == list(range(rows))
    assert len(train) >= 1
    assert (len(held_out) > 0) == (fraction > 0)
    again = split_rows(rows, fraction, seed)
    assert all(np.array_equal(a, b) for a, b in zip((train, held_out), again, strict=True))


@given(rows=st.integers(1, 60), steps=st.integers(1, 20), batch=st.integers(1, 16), seed=SEEDS)
def test_each_epoch_is_a_permutation(rows, steps, batch, seed):
    order = reading_order(rows, steps, batch, seed)
    assert len(order) == steps * batch
    for start in range(0, len(order), rows):
        epoch = order[start : start + rows]
        assert len(set(epoch.tolist())) == len(epoch)
        assert set(epoch.tolist()) <= set(range(rows))


def test_more_steps_leave_the_first_ones_as_they_are():
    assert np.array_equal(reading_order(10, 3, 4, 1), reading_order(10, 9, 4, 1)[:12])
    assert not np.array_equal(reading_order(10, 3, 4, 1), reading_order(10, 3, 4, 2))


def test_the_share_held_out():
    train, held_out = split_rows(100, 0.1, 0)
    assert (len(train), len(held_out)) == (90, 10)
