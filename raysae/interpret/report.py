"""The report as one HTML page: numbers and pictures prepared here, drawn by the templates.

The page asks nothing of the network and runs no script; its own content security policy forbids
both. Every text from the data passes Jinja's escaping, every image Pillow's decoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from raysae.interpret import formats
from raysae.interpret.cards import PatchExample
from raysae.interpret.charts import Chart, histogram_chart, line_chart
from raysae.interpret.content import ReportContent
from raysae.interpret.findings import findings, headline, verdict
from raysae.interpret.images import patch_picture, thumbnail
from raysae.interpret.measures import AucRow, SaeSummary
from raysae.interpret.statistics import share_interval

LIMITS = {
    "features": 24,
    "patches": 5,
    "tokens": 8,
    "samples": 12,
    "deciding": 16,
    "rejected": 20,
    "detail": 500,
    "context": 120,
}
"""What is drawn at most: cross-modal features; patches and tokens of each; samples at either end;
deciding features of each; rejected rows per reason; characters of a rejection's detail; characters
on either side of a token. They keep the page below 5 MB whatever it is given, and it says where
features, samples or rows are left out."""

SELECTION_NOTE = (
    "How many rows have which score. The dashed line is the score of the last row kept; a bar of "
    "both colours holds rows on either side of it."
)
SCORER_NOTES = {
    "cosine-union": "Sum of the weights ω of all features active anywhere in the row.",
    "cosine-union-mean": "Mean weight ω of all features active anywhere in the row.",
    "cosine-cooccurring": "Sum of the weights ω of the features active on both text and image.",
    "cosine-cooccurring-mean": "Mean weight ω of the features active on both text and image.",
    "l0": "Number of features active on a token, mean (by setting: sum) over the row's tokens.",
    "l0-cooccurring": "Number of features active on both text and image.",
    "random": "A hash of the row's id: the control that every scorer has to beat.",
}
SCORE_NOTE = "Height: rows with that score; kept rows are at the bottom of each bar."
WEIGHT_NOTE = "How many features have which weight; features without one are left out."
CURVE_TITLES = {
    "loss": "Training loss",
    "FVU": "Variance unexplained",
    "L0": "Active features per token",
}
CURVE_NOTES = {
    "loss": "What the optimiser minimises, sparsity term included; it should fall and flatten.",
    "FVU": "Lower is better; a rise says that sparsity is bought with reconstruction.",
    "L0": "How many features describe a token; it should settle.",
}


def render_report(content: ReportContent) -> str:
    """Return the report as one self-contained HTML page.

    The result is a pure function of `content`. It has no lone surrogates, so that it encodes to
    UTF-8 whatever the texts hold.

    Args:
        content: What to show; of long lists only the first are drawn (`LIMITS`).
    """
    shown = content.features[: LIMITS["features"]]
    return render_page(
        "report.html.jinja",
        content=content,
        headline=headline(content),
        findings=findings(content),
        selection_chart=_selection_chart(content),
        score_charts=_score_charts(content),
        weight_chart=_weight_chart(content),
        curve_charts=_curve_charts(content.sae),
        aucs_by_kind=_aucs_by_kind(content),
        features=shown,
        feature_ids={card.feature for card in shown},
        settings=[(part, list(_flat(values))) for part, values in _parts(content.settings)],
    )


def render_page(template: str, **values: Any) -> str:
    """Return a template's page, without lone surrogates.

    Args:
        template: Its file.
        values: What it names, `limits` aside.
    """
    page = _environment().get_template(template).render(limits=LIMITS, **values)
    return page.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("raysae.interpret", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        "count",
        "significant",
        "fixed",
        "percent",
        "duration",
        "visible",
        "split_token",
        "long_text",
    )
    environment.filters |= {name: getattr(formats, name) for name in filters}
    environment.filters |= {"thumbnail": thumbnail, "patch_picture": _patch, "verdict": verdict}
    environment.globals |= {"interval": formats.interval, "share_interval": share_interval}
    return environment


def _patch(example: PatchExample) -> Any:
    return patch_picture(example.image, example.box)


def _selection_chart(content: ReportContent) -> Chart | None:
    """Draw the deciding scorer's histogram with the threshold."""
    chosen = content.selection
    for scorer in content.scorers:
        if scorer.scorer == chosen.scorer:
            return histogram_chart(
                f"Scores by {scorer.scorer}",
                "score",
                "rows",
                scorer.histogram,
                note=SELECTION_NOTE,
                marker=chosen.threshold,
            )
    return None


def _score_charts(content: ReportContent) -> list[Chart]:
    charts = (
        histogram_chart(
            summary.scorer,
            "score",
            "rows",
            summary.histogram,
            note=f"{SCORER_NOTES.get(summary.scorer, '')} {SCORE_NOTE}".strip(),
        )
        for summary in content.scorers
    )
    return [chart for chart in charts if chart is not None]


def _weight_chart(content: ReportContent) -> Chart | None:
    if content.weights is None:
        return None
    data = content.weights.histogram
    return histogram_chart("Cross-modal weights", "weight ω", "features", data, note=WEIGHT_NOTE)


def _curve_charts(sae: SaeSummary | None) -> list[Chart]:
    if sae is None or not sae.curve:
        return []
    series = (
        ("loss", [(point.step, point.loss) for point in sae.curve]),
        ("FVU", [(point.step, point.fvu) for point in sae.curve]),
        ("L0", [(point.step, point.l0) for point in sae.curve]),
    )
    charts = (
        line_chart(CURVE_TITLES[label], "optimiser step", label, points, CURVE_NOTES[label])
        for label, points in series
    )
    return [chart for chart in charts if chart is not None]


def _aucs_by_kind(content: ReportContent) -> list[tuple[str, list[AucRow]]]:
    """Group the AUCs by kind of corruption, kinds and scorers in the order given."""
    if content.truth is None:
        return []
    kinds = list(dict.fromkeys(row.kind for row in content.truth.aucs))
    rows = sorted(content.truth.aucs, key=lambda row: kinds.index(row.kind))
    return [(kind, list(group)) for kind, group in groupby(rows, key=lambda row: row.kind)]


def _parts(settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Split settings by part; settings that belong to no part come first, under an empty name."""
    loose = {name: value for name, value in settings.items() if not isinstance(value, Mapping)}
    nested = [(name, value) for name, value in settings.items() if isinstance(value, Mapping)]
    return ([("", loose)] if loose else []) + nested


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as (dotted name, value as JSON)."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _json(value)))
    return rows


def _json(value: Mapping[str, Any] | Sequence[Any] | object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
