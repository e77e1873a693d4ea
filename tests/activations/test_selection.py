from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.activations import CacheSettings
from raysae.activations.selection import balanced_counts, count_kept, keep_by_norm, keep_of_sample
from tests.reference import activations as reference

COUNTS = st.integers(0, 60)


@given(COUNTS, COUNTS, st.integers(0, 20), st.integers(0, 130))
def test_balanced_counts_match_the_twin(images: int, others: int, f: int, limit: int) -> None:
    result = balanced_counts(images, others, f / 20, limit)
    assert result == reference.balanced_counts(images, others, f / 20, limit)


@pytest.mark.parametrize(
    ("images", "others", "fraction", "kept"),
    [
        (1176, 20, 0.5, (20, 20)),
        (7, 3, 0.7, (7, 3)),
        (100, 0, 0.5, (0, 0)),
        (0, 100, 0.0, (0, 100)),
        (100, 30, 1.0, (100, 0)),
        (10, 10, 5e-324, (0, 10)),
    ],
)
def test_balanced_counts(images: int, others: int, fraction: float, kept: tuple[int, int]) -> None:
    assert balanced_counts(images, others, fraction, images + others) == kept


@given(
    st.lists(st.integers(0, 2), max_size=80),
    st.integers(0, 50),
    st.sampled_from([-1.0, 0.0, 0.3, 0.5, 1.0]),
)
def test_kept_tokens_and_counts_add_up(modality: list[int], limit: int, fraction: float) -> None:
    modality_n = np.array(modality, dtype=np.uint8)
    settings = CacheSettings(tokens_per_sample=limit, image_fraction=fraction)
    kept = keep_of_sample(modality_n, 7, settings)
    assert len(kept.index_m) == count_kept(modality_n, settings)
    assert np.all(np.diff(kept.index_m) > 0)
    assert len(kept.index_m) + kept.dropped_by_fraction + kept.dropped_by_limit == len(modality)
    assert kept.dropped_by_limit >= 0
    assert len(kept.index_m) <= (limit or len(modality))
    if fraction < 0:
        assert kept.dropped_by_fraction == 0
    else:
        images = int((modality_n[kept.index_m] == 1).sum())
        assert abs(images - fraction * len(kept.index_m)) <= 0.5 + 1e-9


def test_draw_depends_on_seed_and_ordinal() -> None:
    modality_n = np.zeros(1000, np.uint8)

    def kept(seed: int, ordinal: int) -> list[int]:
        settings = CacheSettings(tokens_per_sample=20, seed=seed)
        return keep_of_sample(modality_n, ordinal, settings).index_m.tolist()

    assert kept(0, 0) == kept(0, 0)
    assert kept(0, 0) != kept(0, 1)
    assert kept(0, 0) != kept(1, 0)


@given(
    st.lists(
        st.lists(
            st.sampled_from([0.0, 1.0, 2.0, 30.0, float("inf"), float("nan")]),
            min_size=2,
            max_size=2,
        ),
        max_size=30,
    ),
    st.sampled_from([0.5, 1.0, 3.0, 10.0]),
)
def test_keep_by_norm_matches_the_twin(acts: list[list[float]], ratio: float) -> None:
    norm_n = np.array([np.linalg.norm(row) for row in acts], dtype=np.float32)
    expected = reference.kept_by_norm(acts, ratio)
    assert keep_by_norm(norm_n, ratio).tolist() == expected
