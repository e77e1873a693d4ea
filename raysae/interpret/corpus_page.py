"""An inspection as one HTML page that asks nothing of the network, as the report does."""

from __future__ import annotations

from raysae.interpret.charts import Chart, histogram_chart
from raysae.interpret.formats import significant
from raysae.interpret.inspection import Inspection, Spread
from raysae.interpret.report import render_page


def render_corpus(found: Inspection) -> str:
    """Return an inspection as one self-contained HTML page."""
    charts = [chart for chart in map(_chart, found.spreads) if chart is not None]
    return render_page("corpus.html.jinja", found=found, charts=charts)


def _chart(one: Spread) -> Chart | None:
    low, _, median, most, high = (significant(value) for value in one.quantiles)
    note = f"From {low} to {high}, median {median}, 95 % up to {most}. The last 1 % is cut off."
    return histogram_chart(
        one.name[:1].upper() + one.name[1:], one.name, "rows", one.histogram, note=note
    )
