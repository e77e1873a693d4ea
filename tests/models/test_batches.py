from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raysae.models.batches import length_batches, padding_share
from tests.reference.models import padded_and_used

LENGTHS = st.lists(st.integers(1, 50), max_size=40)


@given(LENGTHS, st.integers(1, 200))
def test_every_index_once_and_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = length_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        cost = len(batch) * max(lengths[i] for i in batch)
        assert cost <= budget or len(batch) == 1


@given(LENGTHS, st.integers(1, 200))
def test_longest_first_and_equal_lengths_in_order(lengths: list[int], budget: int) -> None:
    order = [i for batch in length_batches(lengths, budget) for i in batch]
    assert order == sorted(order, key=lambda i: (-lengths[i], i))


@given(LENGTHS, st.integers(1, 200))
def test_padding_share_equals_slow_twin(lengths: list[int], budget: int) -> None:
    batches = length_batches(lengths, budget)
    padded, used = padded_and_used(lengths, batches)
    assert padding_share(lengths, batches) == (1 - used / padded if padded else 0.0)


def test_sorting_pads_less_than_arrival_order() -> None:
    lengths = [10, 100] * 8
    arrival = [[i, i + 1] for i in range(0, 16, 2)]
    assert padding_share(lengths, arrival) > 0.4
    assert padding_share(lengths, length_batches(lengths, 200)) == 0.0
