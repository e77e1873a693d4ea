"""An inspection as one HTML page that asks nothing of the network, as the report does."""

from __future__ import annotations

from raysae.interpret.charts import Chart, histogram_chart
from raysae.interpret.formats import count, measure
from raysae.interpret.inspection import Inspection, Spread
from raysae.interpret.report import render_page


def render_corpus(found: Inspection) -> str:
    """Return an inspection as one self-contained HTML page."""
    varying = [one for one in found.spreads if not one.is_constant]
    charts = [chart for chart in map(_chart, varying) if chart is not None]
    constants = [
        f"{one.name}: {measure(one.quantiles[0])}" for one in found.spreads if one.is_constant
    ]
    return render_page("corpus.html.jinja", found=found, charts=charts, constants=constants)


def _chart(one: Spread) -> Chart | None:
    low, _, median, most, high = (measure(value) for value in one.quantiles)
    note = f"From {low} to {high}, median {median}, 95 % up to {most}."
    if one.cut_off:
        note += f" {count(one.cut_off)} of {count(one.rows)} are beyond the right end."
    return histogram_chart(
        one.name[:1].upper() + one.name[1:], one.name, "rows", one.histogram, note=note
    )
