"""AUC and rank correlation, against loops and known values."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.errors import DataError
from raysae.scoring import auc, spearman, token_count_correlations
from raysae.scoring.statistics import average_ranks
from tests.reference import scoring as twin


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.0, 1.0, 2.0, -3.5, math.inf]), st.booleans()), min_size=2
    )
)
def test_auc_equals_the_loop(rows: list[tuple[float, bool]]) -> None:
    scores, corrupt = zip(*rows, strict=True)
    if len(set(corrupt)) < 2:
        with pytest.raises(DataError, match="intact and corrupted"):
            auc(scores, corrupt)
        return
    assert auc(scores, corrupt) == pytest.approx(twin.auc(scores, corrupt), abs=1e-12)


def test_auc_of_extremes() -> None:
    assert auc([3, 2, 1, 0], [False, False, True, True]) == 1.0
    assert auc([0, 1, 2, 3], [False, False, True, True]) == 0.0
    assert auc([1, 1, 1], [False, True, True]) == 0.5
    with pytest.raises(DataError, match="not NaN"):
        auc([math.nan, 1.0], [True, False])


def test_ranks_share() -> None:
    assert average_ranks([2.0, 1.0, 2.0, 5.0]).tolist() == [2.5, 1.0, 2.5, 4.0]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=20))
def test_spearman_is_the_correlation_of_ranks(rows: list[tuple[int, int]]) -> None:
    x, y = zip(*rows, strict=True)
    got = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert got is None
        return
    ranks = [[sum(b < a for b in v) + (v.count(a) + 1) / 2 for a in v] for v in (x, y)]
    assert got == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-12)


def test_spearman_refuses_and_shrugs() -> None:
    assert spearman([], []) is None
    assert spearman([1, 2, 3], [10, 100, 1000]) == 1.0
    with pytest.raises(DataError, match="equal length"):
        spearman([1, 2], [1])


def test_token_counts() -> None:
    table = pa.table(
        {"score": [1.0, 2.0, 3.0], "text_tokens": [3, 2, 1], "image_tokens": [7, 7, 7]}
    )
    assert token_count_correlations({"l0": table}) == {
        "l0": {"text_tokens": -1.0, "image_tokens": None, "tokens": -1.0}
    }
