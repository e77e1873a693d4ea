"""Selection: equal to the loop, whatever the order of the rows."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from raysae.errors import DataError
from raysae.scoring import KEPT_SCHEMA, SelectionSettings, first_of_each_id, select
from tests.reference import scoring as twin

Rows = list[tuple[str, int, float]]

VARIANTS = [
    SelectionSettings(),
    SelectionSettings(fraction=0.2, order="lowest"),
    SelectionSettings(n=3),
    SelectionSettings(min_score=0.5),
    SelectionSettings(min_score=0.25, max_score=0.75, order="lowest"),
    SelectionSettings(max_score=0.5, n=2),
]
SCORES = [0.0, -0.0, 0.25, 0.5, 0.75, 1.0, math.nan, -1.5]


def as_table(rows: Rows) -> pa.Table:
    ids, ordinals, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.table(
        {
            "sample_id": pa.array(ids, pa.string()),
            "ordinal": pa.array(ordinals, pa.int64()),
            "score": pa.array(scores, pa.float64()),
        }
    )


row_lists = st.lists(
    st.tuples(st.sampled_from("abcdefghijé𝄞ﬀ"), st.sampled_from(SCORES)), min_size=1, max_size=30
).map(lambda rows: [(name, ordinal, score) for ordinal, (name, score) in enumerate(rows)])


@hypothesis_settings(max_examples=150, deadline=None)
@given(rows=row_lists, variant=st.sampled_from(VARIANTS), seed=st.integers(0, 1000))
def test_equals_the_loop_in_any_order(rows: Rows, variant: SelectionSettings, seed: int) -> None:
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    if all(math.isnan(score) for _, _, score in twin_unique(rows)):
        with pytest.raises(DataError, match="no scored sample"):
            select(as_table(shuffled), variant)
        return
    expected = twin.select(rows, variant)
    if not expected:
        with pytest.raises(DataError, match="no sample meets"):
            select(as_table(shuffled), variant)
        return
    selection = select(as_table(shuffled), variant)
    kept = selection.kept.sort_by("rank")
    assert kept["sample_id"].to_pylist() == expected
    assert selection.kept["ordinal"].to_pylist() == sorted(kept["ordinal"].to_pylist())
    assert selection.kept.schema.equals(KEPT_SCHEMA)
    assert selection.rows == len(rows)
    assert selection.duplicates == len(rows) - len({name for name, _, _ in rows})


def twin_unique(rows: Rows) -> Rows:
    first: dict[str, tuple[str, int, float]] = {}
    for row in rows:
        first.setdefault(row[0], row)
    return list(first.values())


def test_the_first_ordinal_of_an_id_wins() -> None:
    table = as_table([("b", 7, 0.1), ("a", 3, 0.9), ("b", 2, 0.5), ("a", 5, 0.2)])
    assert first_of_each_id(table).to_pylist() == [
        {"sample_id": "a", "ordinal": 3, "score": 0.9},
        {"sample_id": "b", "ordinal": 2, "score": 0.5},
    ]


def test_a_row_without_score_is_counted_and_never_kept() -> None:
    table = as_table([("a", 0, math.nan), ("b", 1, 1.0), ("c", 2, 2.0)])
    nothing = pa.table(
        {"sample_id": ["d"], "ordinal": [3], "score": pa.array([None], pa.float64())}
    )
    selection = select(pa.concat_tables([table, nothing]), SelectionSettings(fraction=1.0))
    assert selection.kept["sample_id"].to_pylist() == ["b", "c"]
    assert (selection.unscored, selection.cutoff) == (2, 1.0)


def test_limits_that_nothing_meets_are_named_with_the_scores_there_are() -> None:
    table = as_table([("a", 0, 0.125), ("b", 1, 3.0), ("c", 2, math.nan)])
    with pytest.raises(
        DataError, match=r"select\.min_score = 5: the 2 scores by l0 lie between 0\.125 and 3;"
    ):
        select(table, SelectionSettings("l0", min_score=5.0))
    both = SelectionSettings(min_score=1.0, max_score=2.0)
    with pytest.raises(DataError, match=r"select\.min_score = 1 and select\.max_score = 2: "):
        select(table, both)


def test_refuses_a_table_without_scores() -> None:
    with pytest.raises(DataError, match="lack the column"):
        select(as_table([("a", 0, 0.1)]).drop_columns(["score"]), SelectionSettings())
    with pytest.raises(DataError, match="no scored sample"):
        select(as_table([]), SelectionSettings())
