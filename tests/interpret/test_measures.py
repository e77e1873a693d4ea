from __future__ import annotations

import math

import pytest

from raysae.interpret.measures import AucRow


@pytest.mark.parametrize(
    ("low", "high", "unsure"),
    [
        (0.51, 0.9, False),
        (0.5, 0.9, True),
        (0.1, 0.49, False),
        (0.3, 0.5, True),
        (math.nan, math.nan, True),
    ],
)
def test_an_interval_with_one_half_cannot_tell(low, high, unsure):
    assert AucRow("a", "any", 3, 4, 0.6, low, high).cannot_tell is unsure
