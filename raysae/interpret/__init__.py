"""The HTML report: what was kept and why, in one file that needs nothing else.

A stage fills `ReportContent` (its parts are frozen dataclasses; the summaries of whole columns come
from `summarize_scores`, `summarize_weights`, `group_rejections`, `auc_by_kind` and `kind_counts`)
and writes what `render_report` returns. Nothing here reads artifacts or knows Ray.
"""

from raysae.interpret.auc import auc_by_kind, kind_counts
from raysae.interpret.cards import (
    Box,
    DecidingFeature,
    FeatureCard,
    PatchExample,
    SampleCard,
    TokenExample,
)
from raysae.interpret.content import (
    ArtifactRef,
    RejectionGroup,
    ReportContent,
    SelectionSummary,
    StageCounts,
)
from raysae.interpret.measures import (
    AucRow,
    Histogram,
    KindCount,
    ModalityHealth,
    SaeSummary,
    ScorerSummary,
    TrainingPoint,
    Truth,
    WeightSummary,
)
from raysae.interpret.report import render_report
from raysae.interpret.statistics import group_rejections, summarize_scores, summarize_weights

__all__ = [
    "ArtifactRef",
    "AucRow",
    "Box",
    "DecidingFeature",
    "FeatureCard",
    "Histogram",
    "KindCount",
    "ModalityHealth",
    "PatchExample",
    "RejectionGroup",
    "ReportContent",
    "SaeSummary",
    "SampleCard",
    "ScorerSummary",
    "SelectionSummary",
    "StageCounts",
    "TokenExample",
    "TrainingPoint",
    "Truth",
    "WeightSummary",
    "auc_by_kind",
    "group_rejections",
    "kind_counts",
    "render_report",
    "summarize_scores",
    "summarize_weights",
]
