from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.corpora.parallel import in_order


@settings(max_examples=50)
@given(
    count=st.integers(0, 200),
    bad=st.sets(st.integers(0, 199), max_size=3),
    threads=st.integers(1, 8),
    cautious=st.booleans(),
)
def test_it_is_a_loop(count: int, bad: set[int], threads: int, cautious: bool) -> None:
    def work(number: int) -> int:
        if number in bad:
            raise ValueError(number)
        return number * number

    first_bad = min((number for number in bad if number < count), default=None)
    results: list[int] = []
    if first_bad is None:
        results.extend(in_order(work, range(count), threads, cautious=cautious))
    else:
        with pytest.raises(ValueError, match=f"^{first_bad}$"):
            results.extend(in_order(work, range(count), threads, cautious=cautious))
    expected = range(count if first_bad is None else first_bad)
    assert results == [number * number for number in expected]


def test_a_slow_item_does_not_let_a_later_error_win() -> None:
    def work(number: int) -> int:
        if number == 0:
            time.sleep(0.05)
        raise ValueError(number)

    with pytest.raises(ValueError, match=r"^0$"):
        list(in_order(work, range(100), 8))


def test_caution_looks_little_ahead() -> None:
    seen: list[int] = []
    results = in_order(
        lambda number: seen.append(number) or number, range(10_000), 8, cautious=True
    )
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert len(seen) <= 16


def test_not_everything_is_in_memory_at_once() -> None:
    taken = 0

    def items() -> object:
        nonlocal taken
        for number in range(100_000):
            taken += 1
            yield number

    results = in_order(lambda number: number, items(), 2)
    next(results)
    results.close()
    assert taken < 1000


def test_threads_work_at_once() -> None:
    barrier = threading.Barrier(2, timeout=20)
    assert len(list(in_order(lambda _: barrier.wait(), range(32), 2))) == 32
