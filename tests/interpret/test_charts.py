from __future__ import annotations

import math
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from raysae.interpret import charts
from raysae.interpret.measures import Histogram


@settings(deadline=None)
@given(low=st.floats(-1e9, 1e9), span=st.floats(1e-6, 1e9), wanted=st.integers(2, 8))
@example(low=1.0, span=400400401.0, wanted=2)
def test_linear_ticks_are_inside_and_few(low, span, wanted):
    high = low + span
    ticks = charts.linear_ticks(low, high, wanted)
    slack = 1e-6 * max(span, abs(low) * 1e-6)
    assert 1 <= len(ticks) <= 2 * wanted + 2 or not high > low
    assert all(low - slack <= tick <= high + slack for tick in ticks)


def test_ticks_are_round():
    assert charts.linear_ticks(0, 1) == (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert charts.linear_ticks(3, 3) == (3,)
    assert charts.log_ticks(160, 4200) == (200, 500, 1000, 2000)
    assert charts.log_ticks(1, 1e6) == (1, 10, 100, 1000, 1e4, 1e5, 1e6)


def test_scale_maps_ends_to_ends():
    scale = charts.Scale(1, 100, 0, 10, logarithmic=True)
    assert (scale(1), scale(10), scale(100)) == (0, 5, 10)
    assert charts.Scale(3, 3, 0, 10)(3) == 5


def test_line_has_a_gap_where_a_value_is_unknown():
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.5)]
    chart = charts.line_chart("Loss", "step", "loss", points, "note")
    assert chart is not None
    assert chart.path.count("M") == 2
    assert "nan" not in chart.path
    assert chart.alt == "Loss: from 1.00 at 0 to 1.50 at 3 (step)."


def test_line_of_a_wide_range_is_logarithmic():
    chart = charts.line_chart("Loss", "step", "loss", [(0, 1000.0), (9, 1.0)])
    assert chart is not None
    assert chart.y_label == "loss (log scale)"


def test_long_lines_are_thinned_and_keep_their_ends():
    points = [(float(step), float(step % 7)) for step in range(5000)]
    chart = charts.line_chart("L0", "step", "L0", points)
    assert chart is not None
    places = re.findall(r"[ML]([\d.]+) ", chart.path)
    assert len(places) == charts.MAX_POINTS
    assert (float(places[0]), float(places[-1])) == (charts.LEFT, charts.RIGHT)


@pytest.mark.parametrize("points", [[], [(0, math.nan)]])
def test_line_of_nothing_is_none(points):
    assert charts.line_chart("x", "x", "x", points) is None


def test_constant_line_is_drawn():
    chart = charts.line_chart("L0", "step", "L0", [(5, 0.0)])
    assert chart is not None
    assert chart.path


def test_bars_stack_and_have_heights_in_proportion():
    data = Histogram((0.0, 1.0, 2.0), (2, 0), (6, 4))
    chart = charts.histogram_chart("Scores", "score", "rows", data, marker=1.0)
    assert chart is not None
    first_kept, first_dropped, second = chart.bars
    assert first_dropped.height == pytest.approx(3 * first_kept.height, abs=0.05)
    assert second.height == pytest.approx(2 * first_kept.height, abs=0.05)
    assert first_dropped.y + first_dropped.height == pytest.approx(first_kept.y, abs=0.05)
    assert first_kept.hint == "0 to 1.00: 8 (2 kept)"
    assert chart.marker == charts.Tick(199.0, "1.00")
    assert all("." not in tick.label for tick in chart.y_ticks)


def test_marker_outside_is_left_out():
    data = Histogram((0.0, 1.0), (2,), (0,))
    chart = charts.histogram_chart("Scores", "score", "rows", data, marker=7.0)
    assert chart is not None
    assert chart.marker is None
    assert chart.bars[0].hint == "0 to 1.00: 2"


def test_empty_histogram_is_none():
    assert charts.histogram_chart("x", "x", "x", Histogram((), (), ())) is None
