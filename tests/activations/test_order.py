from __future__ import annotations

import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.activations import ReadingOrder
from raysae.activations.seeded import random_keys
from raysae.errors import DataError, SettingsError
from tests.reference import activations as reference

SHARDS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


def pairs(order: ReadingOrder, steps: range, batch: int) -> list[tuple[int, int]]:
    read = [order.rows(step, batch) for step in steps]
    return [
        pair for shards, rows in read for pair in zip(shards.tolist(), rows.tolist(), strict=True)
    ]


@settings(max_examples=150, deadline=None)
@given(SHARDS, st.integers(-5, 2**63), st.integers(1, 6), st.integers(0, 3))
def test_every_epoch_is_a_permutation_of_all_rows(
    shard_rows: list[int], seed: int, mix_shards: int, epoch: int
) -> None:
    order = ReadingOrder(shard_rows, seed, mix_shards)
    everything = [(shard, row) for shard, rows in enumerate(shard_rows) for row in range(rows)]
    assert sorted(pairs(order, range(epoch, epoch + 1), order.total_rows)) == everything


@settings(max_examples=60, deadline=None)
@given(SHARDS, st.integers(0, 9), st.integers(1, 5), st.integers(1, 300), st.integers(0, 4))
def test_rows_match_the_slow_twin(
    shard_rows: list[int], seed: int, mix_shards: int, batch: int, step: int
) -> None:
    order = ReadingOrder(shard_rows, seed, mix_shards)
    epochs = range((step + 1) * batch // order.total_rows + 1)
    keys = [tuple(map(int, random_keys(2, seed, epoch))) for epoch in epochs]
    expected = reference.batch_rows(shard_rows, mix_shards, keys, step * batch, batch)
    assert pairs(order, range(step, step + 1), batch) == expected


@settings(max_examples=60, deadline=None)
@given(SHARDS, st.integers(1, 12), st.integers(1, 12))
def test_batches_cut_one_sequence(shard_rows: list[int], a: int, b: int) -> None:
    """The same sequence of rows, whatever the batch size, and whatever was asked before."""
    order = ReadingOrder(shard_rows, 1)
    whole = pairs(order, range(1), a * b)
    assert pairs(order, range(b), a) == whole
    backwards = [pairs(order, range(step, step + 1), b) for step in reversed(range(a))]
    assert [pair for part in reversed(backwards) for pair in part] == whole


def test_seeds_and_epochs_differ() -> None:
    def epoch(seed: int, number: int) -> list[tuple[int, int]]:
        return pairs(ReadingOrder([50] * 6, seed), range(number, number + 1), 300)

    orders = [epoch(seed, number) for seed in range(3) for number in range(3)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])


def test_batches_mix_every_shard_of_a_window() -> None:
    order = ReadingOrder([1000] * 20, 0, mix_shards=4)
    for step in range(20):
        shards, counts = np.unique(order.rows(step, 1000)[0], return_counts=True)
        assert len(shards) == 4
        assert counts.min() > 180


def test_shuffling_is_random_within_a_window() -> None:
    """Over many seeds each row lands everywhere alike, and neighbours are independent."""
    size, seeds = 40, 2000
    landings = np.zeros((size, size))
    followers = np.zeros((size, size))
    for seed in range(seeds):
        row_n = ReadingOrder([size], seed).rows(0, size)[1]
        landings[row_n, np.arange(size)] += 1
        followers[row_n[:-1], row_n[1:]] += 1
    expected = seeds / size
    chi2 = ((landings - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)
    assert np.all(np.diag(followers) == 0)
    off = followers[~np.eye(size, dtype=bool)]
    expected = seeds / size
    chi2 = ((off - expected) ** 2 / expected).sum()
    assert abs(chi2 - len(off)) < 5 * np.sqrt(2 * len(off))


def test_shuffling_a_large_window_leaves_no_trend() -> None:
    row_n = ReadingOrder([200_000], 7).rows(0, 200_000)[1].astype(float)
    bound = 4 / np.sqrt(len(row_n))
    assert abs(np.corrcoef(row_n, np.arange(len(row_n)))[0, 1]) < bound
    for lag in (1, 2, 447, 448):
        assert abs(np.corrcoef(row_n[:-lag], row_n[lag:])[0, 1]) < bound


def test_hundred_thousand_shards_are_quick() -> None:
    started = time.perf_counter()
    order = ReadingOrder([1000] * 100_000, 0)
    for step in (0, 24_413, 24_414, 10**6):
        shard_n, row_n = order.rows(step, 4096)
        assert shard_n.max() < 100_000
        assert row_n.max() < 1000
    assert time.perf_counter() - started < 3


def test_order_pickles() -> None:
    order = ReadingOrder([5, 6], 0)
    order.rows(0, 3)
    copy = pickle.loads(pickle.dumps(order))
    assert pairs(copy, range(4), 3) == pairs(order, range(4), 3)


def test_impossible_orders_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        ReadingOrder([0, 0], 0)
    with pytest.raises(DataError, match="no rows"):
        ReadingOrder([], 0)
    with pytest.raises(SettingsError, match="mix_shards"):
        ReadingOrder([1], 0, mix_shards=0)
