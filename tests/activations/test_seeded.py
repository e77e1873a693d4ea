from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysae.activations.seeded import (
    FEISTEL_ROUNDS,
    draw,
    permutation,
    random_keys,
    shuffled_index,
)
from raysae.splitmix import mix
from tests.reference import activations as reference


def test_streams_are_pinned() -> None:
    """Caches on disk were made with these: they must not change with numpy's version."""
    assert random_keys(2, 42, "shard-00000").tolist() == [
        16252524141329582720,
        12875245724002482698,
    ]
    assert permutation(6, 42, "shard-00000").tolist() == [2, 4, 5, 1, 3, 0]


def test_keys_differ_in_every_part() -> None:
    keys = [(1, 2), (2, 1), (1, "2"), ("1", 2), (-1, 2), (1, 2, 0)]
    streams = [random_keys(1, *key).tolist() for key in keys]
    assert all(one != other for i, one in enumerate(streams) for other in streams[:i])


@given(st.integers(0, 200), st.integers(0, 200), st.integers())
def test_draws_are_ascending_and_distinct(n: int, count: int, seed: int) -> None:
    drawn = draw(n, count, seed)
    assert len(drawn) == min(n, count)
    assert np.all(np.diff(drawn) > 0)
    assert all(0 <= number < n for number in drawn)


def test_draws_are_even() -> None:
    counts = np.zeros(20)
    for seed in range(4000):
        counts[draw(20, 5, seed)] += 1
    assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(1000 * 0.75))


@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_shuffled_index_is_a_permutation_and_matches_the_twin(size: int, key: int) -> None:
    index_n = np.arange(size)
    result_n = shuffled_index(index_n, np.full(size, size), np.full(size, key, dtype=np.uint64))
    assert sorted(result_n) == list(range(size))
    twin = [reference.shuffled_index(i, size, key, FEISTEL_ROUNDS) for i in range(size)]
    assert result_n.tolist() == twin


@given(st.integers(1, 2**50 - 1), st.data())
def test_large_sizes_match_the_twin(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    result_n = shuffled_index(np.array([index]), np.array([size]), np.array([7], dtype=np.uint64))
    assert result_n[0] == reference.shuffled_index(index, size, 7, FEISTEL_ROUNDS)


@given(st.integers(0, 2**64 - 1))
def test_mix_matches_the_twin(value: int) -> None:
    assert int(mix(np.array([value], dtype=np.uint64))[0]) == reference.mix(value)
