from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.interpret.auc import mean_ranks
from raysae.interpret.statistics import (
    bin_edges,
    group_rejections,
    share_interval,
    spearman,
    summarize_scores,
    summarize_weights,
)
from raysae.sample import Rejection
from tests.reference import interpret as reference

numbers = st.lists(st.integers(-9, 9).map(float), min_size=2, max_size=40)


@settings(deadline=None)
@given(values=numbers)
def test_mean_ranks_equal_counting(values):
    assert mean_ranks(values).tolist() == reference.ranks(values)


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=40))
def test_spearman_is_pearson_of_ranks(pairs):
    x, y = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(spearman(x, y))
    else:
        expected = reference.pearson(reference.ranks(x), reference.ranks(y))
        assert spearman(x, y) == pytest.approx(expected, abs=1e-12)


def test_spearman_of_one_row_is_unknown():
    assert math.isnan(spearman([1.0], [2.0]))


@pytest.mark.parametrize(("part", "whole"), [(0, 10), (10, 10), (3, 40), (1, 1)])
def test_share_interval_holds_every_compatible_share(part, whole):
    expected = reference.compatible(part / whole, lambda p: p * (1 - p) / whole)
    assert share_interval(part, whole) == pytest.approx(expected, abs=1e-5)


def test_share_interval_of_nothing_is_unknown():
    assert all(math.isnan(end) for end in share_interval(0, 0))


@settings(deadline=None)
@given(values=st.lists(st.integers(-1000, 1000), min_size=1, max_size=50), bins=st.integers(1, 40))
def test_whole_numbers_get_bins_of_whole_width(values, bins):
    edges = bin_edges(np.array(values, dtype=np.float64), bins)
    widths = np.diff(edges)
    assert len(widths) <= bins
    assert (widths == np.round(widths)).all()
    assert edges[0] < min(values)
    assert edges[-1] > max(values)


@settings(deadline=None)
@given(
    values=st.lists(
        st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]), min_size=1, max_size=60
    )
)
def test_summary_counts_every_row_once(values):
    kept = [index % 3 == 0 for index in range(len(values))]
    tokens = list(range(len(values)))
    summary = summarize_scores(
        "l0", values, kept_s=kept, text_tokens_s=tokens, image_tokens_s=tokens, bins=7
    )
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    assert summary.rows == len(finite) == len(values) - summary.missing
    assert sum(summary.histogram.kept) == sum(kept[index] for index in finite)
    assert sum(summary.histogram.kept) + sum(summary.histogram.dropped) == len(finite)
    if finite:
        assert summary.minimum <= summary.median <= summary.maximum
    else:
        assert math.isnan(summary.mean)


def test_constant_scores_make_one_bin():
    summary = summarize_scores(
        "a", [0.25] * 4, kept_s=[True] * 4, text_tokens_s=[1] * 4, image_tokens_s=[2, 3, 4, 5]
    )
    assert summary.histogram.kept == (4,)
    assert math.isnan(summary.image_token_correlation)


def test_weights_of_zero_are_no_weights():
    summary = summarize_weights(np.array([0.0, 0.2, -0.1, 0.0], dtype=np.float32))
    assert (summary.features, summary.weighted) == (4, 2)
    assert summary.mean == pytest.approx(0.05)
    assert math.isnan(summarize_weights([0.0]).mean)


def test_rejections_are_grouped_largest_first_with_the_first_examples():
    rows = [Rejection(f"id-{row}", row, "b" if row % 3 else "a", "why") for row in (5, 4, 3, 2, 1)]
    groups = group_rejections(rows, examples=2)
    assert [(group.reason, group.rows) for group in groups] == [("b", 4), ("a", 1)]
    assert [row.ordinal for row in groups[0].examples] == [1, 2]
