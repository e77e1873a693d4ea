from __future__ import annotations

import pickle
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.artifacts import ShardPlan, rows_per_shard
from tests.reference import artifacts as reference

FILES = st.lists(st.integers(0, 40), max_size=8)
BOUNDS = st.integers(1, 12)


@given(FILES, BOUNDS)
def test_a_plan_is_what_a_loop_over_all_rows_makes(file_rows: list[int], bound: int) -> None:
    shards = list(ShardPlan(file_rows, bound))
    found = [(s.file_index, s.start, s.stop, s.first_ordinal) for s in shards]
    assert found == reference.plan(file_rows, bound)


@given(FILES, BOUNDS)
def test_every_row_is_in_one_shard_and_no_shard_spans_files(
    file_rows: list[int], bound: int
) -> None:
    plan = ShardPlan(file_rows, bound)
    seen = [
        (shard.file_index, row, shard.first_ordinal + row - shard.start)
        for shard in plan
        for row in range(shard.start, shard.stop)
    ]
    rows = [(file, row) for file, count in enumerate(file_rows) for row in range(count)]
    assert seen == [(file, row, ordinal) for ordinal, (file, row) in enumerate(rows)]
    assert all(1 <= shard.rows <= bound for shard in plan)


@given(FILES, BOUNDS)
def test_a_plan_is_a_pure_function_and_a_sequence(file_rows: list[int], bound: int) -> None:
    plan = ShardPlan(file_rows, bound)
    shards = list(plan)
    assert list(ShardPlan(tuple(file_rows), bound)) == shards
    assert list(pickle.loads(pickle.dumps(plan))) == shards
    assert [plan[i] for i in range(len(plan))] == shards
    assert [plan[i - len(plan)] for i in range(len(plan))] == shards
    assert list(reversed(plan)) == shards[::-1]
    file_rows.append(100)
    assert list(plan) == shards


@given(FILES, BOUNDS, st.slices(30))
def test_slices(file_rows: list[int], bound: int, part: slice) -> None:
    plan = ShardPlan(file_rows, bound)
    assert plan[part] == list(plan)[part]


@pytest.mark.parametrize("rows", [[], [3], [3, 99_997], [100_001], [10**6], [10**6 + 1]])
def test_names_sort_as_their_numbers(rows: Sequence[int]) -> None:
    plan = ShardPlan(rows, 1)
    numbers = sorted(
        {*range(min(20, len(plan))), *range(0, len(plan), 997), *range(len(plan))[-20:]}
    )
    names = [plan[number].name for number in numbers]
    assert sorted(set(names)) == names
    assert all(name.startswith("shard-") and len(name) >= 11 for name in names)
    assert len({len(name) for name in names}) <= 1


@given(FILES, BOUNDS, st.integers(1, 40))
def test_rows_that_a_corpus_gains_at_its_end_move_no_shard(
    file_rows: list[int], bound: int, new: int
) -> None:
    before = list(ShardPlan(file_rows, bound))
    assert ShardPlan([*file_rows, new], bound)[: len(before)] == before


def test_the_name_of_a_shard_depends_on_its_number_alone() -> None:
    assert [shard.name for shard in ShardPlan([2, 0, 3], 2)] == [
        "shard-00000",
        "shard-00001",
        "shard-00002",
    ]


@pytest.mark.parametrize("index", [3, -4, 100])
def test_a_shard_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError, match=r"of 3"):
        ShardPlan([2, 0, 3], 2)[index]


@pytest.mark.parametrize("bound", [0, -1])
def test_a_shard_holds_rows(bound: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {bound}"):
        ShardPlan([1], bound)


def test_a_large_plan_costs_nothing() -> None:
    plan = ShardPlan([10**9] * 1000, 7)
    assert len(plan) == 1000 * -(-(10**9) // 7)
    assert plan[-1].stop == 10**9
    assert plan[-1].first_ordinal + plan[-1].rows == 10**12


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 500))
def test_as_many_rows_as_fit(worst: int, max_rows: int, max_bytes: int) -> None:
    rows = rows_per_shard(worst, max_rows, max_bytes)
    assert 1 <= rows <= max_rows
    assert rows == 1 or rows * worst <= max_bytes
    if worst:
        assert rows == reference.rows_that_fit(worst, max_rows, max_bytes)
