from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.interpret.auc import auc, auc_by_kind, auc_interval, auc_variance, kind_counts
from tests.reference import interpret as reference

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=25)


@settings(deadline=None)
@given(intact=scores, corrupted=scores)
def test_auc_equals_counting_pairs(intact, corrupted):
    assert auc(intact, corrupted) == pytest.approx(reference.auc(intact, corrupted), abs=1e-12)


def test_auc_of_no_rows_is_unknown():
    assert math.isnan(auc([], [1.0]))
    assert math.isnan(auc([1.0], []))
    assert all(math.isnan(end) for end in auc_interval(math.nan, 0, 3))


@settings(deadline=None)
@given(theta=st.floats(0, 1), m=st.integers(1, 500), n=st.integers(1, 500))
def test_variance_is_hanley_and_mcneils(theta, m, n):
    expected = reference.hanley_mcneil_variance(theta, m, n)
    assert auc_variance(theta, m, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("value", "m", "n"), [(0.5, 7, 9), (0.83, 40, 12), (1.0, 5, 5), (0, 3, 8)])
def test_interval_holds_every_compatible_auc(value, m, n):
    def variance(theta: float) -> float:
        return reference.hanley_mcneil_variance(theta, m, n)

    low, high = reference.compatible(value, variance)
    assert auc_interval(value, m, n) == pytest.approx((low, high), abs=2e-5)


def test_interval_of_full_separation_is_no_point():
    low, high = auc_interval(1.0, 5, 5)
    assert 0.4 < low < 0.8
    assert high == 1.0


@settings(deadline=None)
@given(value=st.floats(0, 1), m=st.integers(1, 1000), n=st.integers(1, 1000))
def test_interval_encloses_its_auc(value, m, n):
    low, high = auc_interval(value, m, n)
    assert 0 <= low <= value <= high <= 1


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.3])
def test_interval_covers_the_truth_about_as_often_as_it_says(shift):
    rng = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(shift / 2))
    hits = 0
    for _ in range(400):
        value = auc(rng.normal(shift, 1, 40), rng.normal(0, 1, 25))
        low, high = auc_interval(value, 40, 25)
        hits += low <= truth <= high
    assert hits / 400 > 0.92


def test_auc_by_kind_orders_and_counts():
    rows = auc_by_kind(
        {"b": [3.0, 2.0, math.nan, 0.0], "a": [1.0, 1.0, 1.0, 1.0]},
        ["", "swapped", "", "blank"],
    )
    assert [(row.scorer, row.kind) for row in rows] == [
        ("b", "any"),
        ("b", "blank"),
        ("b", "swapped"),
        ("a", "any"),
        ("a", "blank"),
        ("a", "swapped"),
    ]
    assert (rows[0].intact, rows[0].corrupted, rows[0].auc) == (1, 2, 1.0)
    assert (rows[3].intact, rows[3].corrupted, rows[3].auc) == (2, 2, 0.5)
    assert rows[3].cannot_tell


def test_auc_by_kind_without_corruption_is_unknown():
    (row,) = auc_by_kind({"a": [1.0, 2.0]}, ["", ""])
    assert math.isnan(row.auc)
    assert row.cannot_tell


def test_kind_counts_start_with_intact_rows():
    counts = kind_counts(["", "swapped", "", "blank", "swapped"], [True, False, False, True, True])
    assert [(kind.kind, kind.rows, kind.kept) for kind in counts] == [
        ("intact", 2, 1),
        ("blank", 1, 1),
        ("swapped", 2, 1),
    ]
