"""Which rows of a file a subset takes; test_select.py has the stage as a whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raysae.stages.select import _rows_between

BOUNDS = st.integers(0, 60)


@given(st.sets(BOUNDS), BOUNDS, BOUNDS)
def test_the_rows_of_a_range_are_found(kept: set[int], a: int, b: int) -> None:
    start, stop = sorted((a, b))
    found = _rows_between(np.array(sorted(kept), np.int64), start, stop)
    assert found.tolist() == [row - start for row in sorted(kept) if start <= row < stop]


def test_only_the_rows_of_the_range_are_looked_at() -> None:
    """10^5 files of 10^6 kept rows: 10^11 comparisons by masks, 10^6 by bisection."""

    class Counted(np.ndarray):
        looked_at = 0

        def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, **_: object):
            arrays = [np.asarray(one) for one in inputs]
            Counted.looked_at += max(array.size for array in arrays)
            return getattr(ufunc, method)(*arrays)

    kept = np.arange(10_000).view(Counted)
    for start in range(0, 10_000, 10):
        assert np.asarray(_rows_between(kept, start, start + 10)).tolist() == list(range(10))
    assert Counted.looked_at == 10_000
