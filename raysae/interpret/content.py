"""What a report shows: frozen dataclasses that a stage fills and `render_report` draws.

Everything is plain Python (tuples, numbers, strings, encoded image bytes), already cut down to what
a person looks at; nothing here grows with the corpus. The numbers are in `measures`, the samples
and features in `cards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysae.interpret.cards import FeatureCard, SampleCard
from raysae.interpret.measures import SaeSummary, ScorerSummary, Truth, WeightSummary
from raysae.sample import Rejection


@dataclass(frozen=True)
class ArtifactRef:
    """One artifact that the report is about.

    Attributes:
        role: What it is for: `activations`, `sae`, `weights`, `scores`, `subset`, …
        name: `<kind>/<id>`, as `Artifact.name` has it.
        finished_at: As in its metadata, e.g. `2026-02-11T09:12:44Z`; empty if unknown.
    """

    role: str
    name: str
    finished_at: str = ""


@dataclass(frozen=True)
class StageCounts:
    """What one stage read and how long it took.

    Attributes:
        stage: Its name: `cache`, `train`, `weights`, `score`, `select`.
        rows: Corpus rows that it used; 0 where it reads no rows (training reads tokens).
        rejected: Rows that it could not use.
        text_tokens: Text tokens used.
        image_tokens: Image tokens used.
        special_tokens: Tokens of neither modality.
        seconds: Wall-clock time of the run that made the artifact; NaN if unknown.
    """

    stage: str
    rows: int
    rejected: int
    text_tokens: int
    image_tokens: int
    special_tokens: int
    seconds: float


@dataclass(frozen=True)
class RejectionGroup:
    """The rows that were rejected for one reason.

    Attributes:
        reason: The slug, e.g. `truncated-image`.
        rows: How many there are in all.
        examples: Some of them, in corpus order; `group_rejections` keeps the first 20.
    """

    reason: str
    rows: int
    examples: tuple[Rejection, ...]


@dataclass(frozen=True)
class SelectionSummary:
    """What was kept.

    Attributes:
        scorer: The scorer that decided.
        order: `highest` or `lowest`: which end was kept.
        corpus_rows: Rows of the corpus, rejected ones included.
        rejected: Rows that could not be scored.
        kept: Rows kept.
        threshold: Score of the last row kept; NaN if none was.
        rule: The rule in words, e.g. `fraction 0.5`.
    """

    scorer: str
    order: str
    corpus_rows: int
    rejected: int
    kept: int
    threshold: float
    rule: str

    @property
    def scored(self) -> int:
        """Rows that could be scored."""
        return self.corpus_rows - self.rejected

    @property
    def dropped(self) -> int:
        """Rows that were scored and not kept."""
        return self.scored - self.kept


@dataclass(frozen=True)
class ReportContent:
    """Everything in one report. The optional parts leave their section out, and say so.

    Attributes:
        corpus: Name of the corpus.
        selection: What was kept.
        stages: In the order that they ran.
        artifacts: What the report was made from.
        settings: The resolved settings, nested by part.
        packages: Versions, by package (`raysae.artifacts.package_versions`).
        rejections: Largest group first (`group_rejections`).
        scorers: The scorer that decided first.
        best: Samples with the highest scores by the deciding scorer, highest first (12).
        worst: Samples with the lowest scores, lowest first (12).
        features: Features with the largest weights, strongest first.
        sae: None where no SAE was used (selection by `random`).
        weights: None likewise.
        truth: None where the corpus does not know which rows are corrupted.
        created_at: When the report was made, UTC, e.g. `2026-02-11T09:12:44Z`; empty to leave out.
    """

    corpus: str
    selection: SelectionSummary
    stages: tuple[StageCounts, ...]
    artifacts: tuple[ArtifactRef, ...]
    settings: Mapping[str, Any]
    packages: Mapping[str, str]
    rejections: tuple[RejectionGroup, ...]
    scorers: tuple[ScorerSummary, ...]
    best: tuple[SampleCard, ...]
    worst: tuple[SampleCard, ...]
    features: tuple[FeatureCard, ...]
    sae: SaeSummary | None = None
    weights: WeightSummary | None = None
    truth: Truth | None = None
    created_at: str = ""
