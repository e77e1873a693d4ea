"""Everything of a run that a person should see, gathered into one page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts import Publication, ScoreTable, package_versions
from raysae.corpora import known_corruption
from raysae.interpret import (
    ArtifactRef,
    ModalityHealth,
    ReportContent,
    SaeSummary,
    SelectionSummary,
    StageCounts,
    TrainingPoint,
    Truth,
    auc_by_kind,
    group_rejections,
    kind_counts,
    render_report,
    summarize_scores,
    summarize_weights,
)
from raysae.models import load_hidden_state_model
from raysae.sample import Rejection
from raysae.scoring import SCORERS
from raysae.stages._outcome import finish_once
from raysae.stages._report_cards import SampleSource, feature_cards, sample_cards
from raysae.stages.chain import Chain
from raysae.stages.live_scores import row_groups, score_marks
from raysae.stages.result import COUNTED, ShardTotals, StageResult
from raysae.stages.select import KEPT_FILE
from raysae.stages.train import HISTORY_FILE
from raysae.stages.weights import STRONGEST_FILE, read_weights
from raysae.storage import as_number

REPORT_FILE = "report.html"
SHOWN_SAMPLES = 12
"""Best and worst samples on the page."""

COMPARED_COLUMNS = ("ordinal", "score", "text_tokens", "image_tokens")
"""What the page needs of a scorer that does not decide."""


def run_report(chain: Chain) -> StageResult:
    """Write the report of one subset."""
    artifact = chain.report
    started = time.monotonic()
    artifact.begin()

    def make(files: Publication) -> dict[str, Any]:
        files.put_bytes(REPORT_FILE, render_report(_gather(chain)).encode())
        return {"rows": 0, "rejected": 0, "rejections": {}, "seconds": time.monotonic() - started}

    finish_once(artifact, make)
    return StageResult(0, 0, resumed=False)


def _gather(chain: Chain) -> ReportContent:
    """Read what the page shows out of the finished artifacts."""
    settings = chain.settings
    scores = _scores(chain)
    deciding = scores[settings.select.scorer].sort_by(
        [("score", "descending"), ("sample_id", "ascending")]
    )
    kept_table = pq.read_table(pa.BufferReader(chain.subset.directory.read_bytes(KEPT_FILE)))
    kept = set(kept_table["ordinal"].to_pylist())
    kinds = known_corruption(settings.corpus.name)
    source = SampleSource(chain.corpus, load_hidden_state_model(settings.model, "meta"))
    by_ordinal = {
        name: dict(zip(table["ordinal"].to_pylist(), table["score"].to_pylist(), strict=True))
        for name, table in scores.items()
        if name != settings.select.scorer
    }
    shown = min(SHOWN_SAMPLES, len(deciding))
    worst = deciding.slice(len(deciding) - shown).take(np.arange(shown)[::-1])
    strongest = chain.weights.directory.read_json(STRONGEST_FILE)["features"]
    weights = read_weights(chain.weights.directory)
    marks = list(score_marks(chain))
    return ReportContent(
        corpus=settings.corpus.name,
        selection=_selection(chain),
        stages=_stages(chain, ShardTotals.of(marks).counts),
        artifacts=_artifacts(chain),
        settings=asdict(settings),
        packages=package_versions(),
        rejections=group_rejections(Rejection(**row) for m in marks for row in m["rejections"]),
        scorers=_scorer_summaries(scores, settings.select.scorer, kept),
        best=sample_cards(deciding.slice(0, shown), source, kept, by_ordinal, kinds),
        worst=sample_cards(worst, source, kept, by_ordinal, kinds),
        features=feature_cards(strongest, source),
        sae=_sae(chain),
        weights=summarize_weights(weights.weight_f),
        truth=_truth(scores, deciding["ordinal"].to_pylist(), kept, kinds) if kinds else None,
        created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def _scores(chain: Chain) -> dict[str, pa.Table]:
    """Return every scorer's rows, in order of the corpus.

    They need not be the same rows: a run uses what another has scored, maybe under other versions
    of packages, which rejected other rows. Only the deciding scorer's rows are shown one by one,
    with all of their columns.
    """
    table = ScoreTable(chain.root)
    return {
        scorer: table.read(
            row_groups(chain, scorer),
            None if scorer == chain.settings.select.scorer else COMPARED_COLUMNS,
        ).sort_by("ordinal")
        for scorer in SCORERS
    }


def _artifacts(chain: Chain) -> tuple[ArtifactRef, ...]:
    """Return the artifacts that the page is about."""
    # The cache may have been removed since: the SAE's metadata tells of it. Or there never was one.
    cache = chain.sae.metadata()["activations"]
    there = {"sae": chain.sae, "weights": chain.weights, "subset": chain.subset}
    caches = [] if cache["name"] is None else [cache]
    return (
        *(ArtifactRef("activations", one["name"], one["finished_at"]) for one in caches),
        *(
            ArtifactRef(role, artifact.name, str(artifact.metadata()["finished_at"]))
            for role, artifact in there.items()
        ),
    )


def _selection(chain: Chain) -> SelectionSummary:
    """Summarise what was kept."""
    metadata, select = chain.subset.metadata(), chain.settings.select
    limits = {"n": select.n, "min_score": select.min_score, "max_score": select.max_score}
    given = [f"{name} {value}" for name, value in limits.items() if value is not None]
    return SelectionSummary(
        scorer=select.scorer,
        order=select.order,
        corpus_rows=chain.corpus.snapshot.rows,
        rejected=metadata["rejected"],
        kept=metadata["rows"],
        threshold=as_number(metadata["cutoff"]),
        rule=", ".join(given) or f"fraction {select.fraction}",
    )


def _stages(chain: Chain, scored: Mapping[str, int]) -> tuple[StageCounts, ...]:
    """Return what each stage read and how long it took."""
    train = chain.sae.metadata()
    cache = train["activations"]
    weights, subset = chain.weights.metadata(), chain.subset.metadata()
    # Training reads tokens, not rows; its tokens by modality are those of the held-out health.
    trained = dict.fromkeys(COUNTED, 0)
    before = (
        (_counts("train, streamed", cache, train["seconds"]),)
        if cache["name"] is None
        else (
            _counts("cache", cache, cache["seconds"]),
            _counts("train", trained, train["seconds"]),
        )
    )
    return (
        *before,
        _counts("weights", weights, weights["seconds"]),
        _counts("score", scored, float("nan")),
        _counts("select", {**trained, "rows": subset["scored"]}, subset["seconds"]),
    )


def _counts(stage: str, counts: Mapping[str, Any], seconds: float) -> StageCounts:
    """Return one stage's counts."""
    return StageCounts(
        stage=stage,
        rows=counts["rows"],
        rejected=counts["rejected"],
        text_tokens=counts["text_tokens"],
        image_tokens=counts["image_tokens"],
        special_tokens=counts["special_tokens"],
        seconds=seconds,
    )


def _scorer_summaries(scores: Mapping[str, pa.Table], deciding: str, kept: set[int]) -> Any:
    """Summarise every scorer, the deciding one first."""
    ordered = [deciding, *(name for name in scores if name != deciding)]
    return tuple(
        summarize_scores(
            name,
            scores[name]["score"].to_numpy(),
            kept_s=np.isin(scores[name]["ordinal"].to_numpy(), list(kept)),
            text_tokens_s=scores[name]["text_tokens"].to_numpy(),
            image_tokens_s=scores[name]["image_tokens"].to_numpy(),
        )
        for name in ordered
    )


def _sae(chain: Chain) -> SaeSummary:
    """Summarise the SAE's health and training."""
    metadata, settings = chain.sae.metadata(), chain.settings
    points = chain.sae.directory.read_json(HISTORY_FILE)["points"]
    return SaeSummary(
        architecture=settings.sae.architecture,
        d_in=metadata["d_in"],
        d_sae=settings.sae.d_sae,
        model=settings.model.path,
        corpus=_trained_on(chain),
        layer=settings.model.layer,
        health=tuple(
            _modality_health(group, metadata["health"][group]) for group in ("all", "text", "image")
        ),
        curve=tuple(
            TrainingPoint(int(p["step"]), *(as_number(p[name]) for name in ("loss", "fvu", "l0")))
            for p in points
        ),
    )


def _trained_on(chain: Chain) -> str:
    """Name the SAE's corpus so that it is told from the one that was filtered."""
    settings = chain.settings.sae_corpus
    if chain.sae_snapshot.id == chain.snapshot.id:
        return f"{settings.name}, the same rows"
    return f"{settings.name} in {settings.path}" if settings.path else settings.name


def _modality_health(group: str, numbers: Mapping[str, Any]) -> ModalityHealth:
    """Read one group's numbers; the means of a group without tokens are null."""
    means = ("l0", "fvu", "alive_share", "dead_share", "dense_share")
    return ModalityHealth(
        group, numbers["tokens"], **{name: as_number(numbers[name]) for name in means}
    )


def _truth(
    scores: Mapping[str, pa.Table], deciding: list[int], kept: set[int], kinds: Mapping[int, str]
) -> Truth:
    """Compare every scorer with what was done to the rows.

    Args:
        scores: Every scorer's rows, in order; they are compared on the rows that all of them have.
        deciding: Ordinals of the rows that could be kept.
        kept: Ordinals of those that were.
        kinds: What was done, by ordinal.
    """
    common = reduce(np.intersect1d, (table["ordinal"].to_numpy() for table in scores.values()))
    compared = {
        name: table["score"].to_numpy()[np.isin(table["ordinal"].to_numpy(), common)]
        for name, table in scores.items()
    }
    return Truth(
        aucs=auc_by_kind(compared, [kinds.get(ordinal, "") for ordinal in common.tolist()]),
        counts=kind_counts(
            [kinds.get(ordinal, "") for ordinal in deciding],
            [ordinal in kept for ordinal in deciding],
        ),
    )
