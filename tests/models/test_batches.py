from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.models.anyres import anyres_grid
from raysae.models.batches import MAX_PADDING, length_batches, padding_share
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


@given(LENGTHS, st.integers(1, 200))
def test_no_batch_is_padded_beyond_the_bound(lengths: list[int], budget: int) -> None:
    for batch in length_batches(lengths, budget):
        assert padding_share(lengths, [batch]) <= MAX_PADDING + 1e-12


PUBLISHED_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@pytest.mark.parametrize("token_budget", [4096, 8192, 32768])
@pytest.mark.parametrize("rows", [40, 256])
def test_padding_on_images_and_questions_of_a_preference_corpus(
    rows: int, token_budget: int
) -> None:
    """LLaVA-NeXT's tokens of photographs in usual formats, with questions of 10 to 300 tokens."""
    rng = np.random.default_rng(rows)
    shapes = [(1, 1), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (3, 1), (1, 3)]
    lengths = []
    for _ in range(rows):
        wide, high = shapes[rng.integers(len(shapes))]
        scale = rng.uniform(200, 2000) / max(wide, high)
        grid = anyres_grid(round(high * scale), round(wide * scale), PUBLISHED_PINPOINTS, 336, 14)
        lengths.append(grid.n_tokens + int(np.clip(rng.lognormal(3.5, 0.8), 10, 300)))
    batches = length_batches(lengths, token_budget)
    arrival = [list(range(i, min(i + 4, rows))) for i in range(0, rows, 4)]
    assert padding_share(lengths, batches) <= 0.1 < padding_share(lengths, arrival)
    least = sum(lengths) / token_budget
    assert len(batches) <= 1.6 * least + 6
