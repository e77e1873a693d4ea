"""Charts as geometry: what the template draws as inline SVG, in the units of its viewBox.

All charts have one size, small enough to be read on a phone without scaling the letters down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raysae.interpret.formats import compact, count, significant
from raysae.interpret.measures import Histogram

WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 346, 12, 182
"""The plotting area inside the viewBox."""

MAX_POINTS = 400
LOG_RATIO = 20.0
"""A positive series that spans more than this factor is drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in viewBox units."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A rectangle of a histogram: `kind` is `kept` or `dropped`, `hint` is shown on hovering."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    hint: str


@dataclass(frozen=True)
class Chart:
    """A chart ready to draw.

    Attributes:
        title: What is drawn, for the caption.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        alt: The chart in one sentence, for those who cannot see it.
        note: What it means and how to read it, for the caption.
        x_ticks: Along the bottom.
        y_ticks: Along the left.
        bars: Of a histogram.
        path: SVG path data of a line.
        marker: A vertical line with a label, e.g. the threshold.
    """

    title: str
    x_label: str
    y_label: str
    alt: str
    note: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...] = ()
    path: str = ""
    marker: Tick | None = None


@dataclass(frozen=True)
class Scale:
    """A map from data to viewBox units, linear or logarithmic.

    Attributes:
        low: Data value at `start`.
        high: Data value at `stop`.
        start: Place of `low`.
        stop: Place of `high`.
        logarithmic: Whether equal factors, not differences, have equal lengths.
    """

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a data value, to a hundredth."""
        convert: Callable[[float], float] = math.log10 if self.logarithmic else float
        low, high = convert(self.low), convert(self.high)
        share = (convert(value) - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.stop - self.start), 2)

    def ticks(self, wanted: int = 5, *, whole: bool = False) -> tuple[Tick, ...]:
        """Return about `wanted` ticks at round numbers in the range; for counts whole ones only."""
        places = log_ticks(self.low, self.high) if self.logarithmic else ()
        places = places or linear_ticks(self.low, self.high, wanted)
        places = tuple(value for value in places if not whole or value == int(value))
        return tuple(Tick(self(value), compact(value)) for value in places)


def linear_ticks(low: float, high: float, wanted: int = 5) -> tuple[float, ...]:
    """Return about `wanted` multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    if not high > low:
        return (low,)
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if first > last:
        # A step that was rounded up past the whole span may have no multiple in it.
        return linear_ticks(low, high, wanted + 1)
    # `+ 0.0` turns −0.0 into 0.0.
    return tuple(round(index * step, 12) + 0.0 for index in range(first, last + 1))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return 1, 2, 5 times powers of ten in [low, high], or powers alone if they are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    places = (factor * 10.0**power for power in powers for factor in factors)
    return tuple(place for place in places if low <= place <= high)


def line_chart(
    title: str, x_label: str, y_label: str, points: Sequence[tuple[float, float]], note: str = ""
) -> Chart | None:
    """Draw y over x as a line; None if no y is finite.

    Args:
        title: For the caption.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis; "(log scale)" is added where it is one.
        points: (x, y) in the order of x; a y that is not finite leaves a gap. More than
            `MAX_POINTS` are thinned evenly, first and last kept.
        note: For the caption.
    """
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return None
    values = [y for _, y in finite]
    logarithmic = min(values) > 0 and max(values) > LOG_RATIO * min(values)
    low, high = min(values), max(values)
    if not logarithmic:
        low = min(low, 0.0)
    if low == high:
        high = low + 1
    x_scale = Scale(points[0][0], points[-1][0], LEFT, RIGHT)
    y_scale = Scale(low, high, BOTTOM, TOP, logarithmic)
    (first_x, first_y), (last_x, last_y) = finite[0], finite[-1]
    return Chart(
        title=title,
        x_label=x_label,
        y_label=f"{y_label} (log scale)" if logarithmic else y_label,
        alt=f"{title}: from {significant(first_y)} at {compact(first_x)} "
        f"to {significant(last_y)} at {compact(last_x)} ({x_label}).",
        note=note,
        x_ticks=x_scale.ticks(4),
        y_ticks=y_scale.ticks(),
        path=_path(_thinned(points), x_scale, y_scale),
    )


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    if len(points) <= MAX_POINTS:
        return points
    last = len(points) - 1
    return [points[round(index * last / (MAX_POINTS - 1))] for index in range(MAX_POINTS)]


def _path(points: Sequence[tuple[float, float]], x_scale: Scale, y_scale: Scale) -> str:
    """Return path data; `h0` gives a point between two gaps a length that round caps show."""
    parts: list[str] = []
    in_gap = True
    for x, y in points:
        if math.isfinite(y):
            parts.append(f"{'M' if in_gap else 'L'}{x_scale(x)} {y_scale(y)}")
            parts += ["h0"] if in_gap else []
        in_gap = not math.isfinite(y)
    return "".join(parts)


def histogram_chart(
    title: str,
    x_label: str,
    y_label: str,
    data: Histogram,
    *,
    note: str = "",
    marker: float = math.nan,
) -> Chart | None:
    """Draw a histogram, dropped rows stacked on kept ones; None if it is empty.

    Args:
        title: For the caption.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        data: The counts.
        note: For the caption.
        marker: Where to draw a vertical line, in data units; NaN for none.
    """
    totals = [kept + dropped for kept, dropped in zip(data.kept, data.dropped, strict=True)]
    if not sum(totals):
        return None
    x_scale = Scale(data.edges[0], data.edges[-1], LEFT, RIGHT)
    y_scale = Scale(0.0, float(max(totals)), BOTTOM, TOP)
    low, high = significant(data.edges[0]), significant(data.edges[-1])
    shown = math.isfinite(marker) and data.edges[0] <= marker <= data.edges[-1]
    return Chart(
        title=title,
        x_label=x_label,
        y_label=y_label,
        alt=f"{title}: {count(sum(totals))} values from {low} to {high}, "
        f"the fullest bin holds {count(max(totals))}.",
        note=note,
        x_ticks=x_scale.ticks(),
        y_ticks=y_scale.ticks(4, whole=True),
        bars=tuple(_bars(data, x_scale, y_scale)),
        marker=Tick(x_scale(marker), significant(marker)) if shown else None,
    )


def _bars(data: Histogram, x_scale: Scale, y_scale: Scale) -> list[Bar]:
    bars: list[Bar] = []
    split = any(data.dropped)
    for index, (kept, dropped) in enumerate(zip(data.kept, data.dropped, strict=True)):
        left, right = data.edges[index], data.edges[index + 1]
        x, width = x_scale(left), max(round(x_scale(right) - x_scale(left) - 0.8, 2), 0.5)
        hint = f"{significant(left)} to {significant(right)}: {count(kept + dropped)}"
        hint += f" ({count(kept)} kept)" if split else ""
        for kind, base, size in (("kept", 0, kept), ("dropped", kept, dropped)):
            if size:
                y = y_scale(base + size)
                bars.append(Bar(x, y, width, round(y_scale(base) - y, 2), kind, hint))
    return bars
