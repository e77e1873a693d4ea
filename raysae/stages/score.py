"""Corpus to scores: model, SAE and reduction in one actor; nothing dense is kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts import ShardSpec
from raysae.sample import Rejection, Sample
from raysae.scoring import (
    SCORE_SCHEMA,
    SCORERS,
    FeatureWeights,
    ScoreSettings,
    score_batch,
)
from raysae.scoring.table import RowGroup, ScoreTable
from raysae.stages._encoder import Encoder
from raysae.stages._hidden_states import Reading
from raysae.stages._pool import ShardTask, check_rejected, run_shards
from raysae.stages.chain import Chain
from raysae.stages.live_scores import score_marks
from raysae.stages.result import StageResult, rejection_reasons, sum_counts
from raysae.stages.weights import WEIGHTS_FILE

ShardGroups = Mapping[str, Mapping[str, RowGroup]]
"""Shard name → scorer → the row group to be written."""


class ScoreWorker:
    """Scores shards.

    Args:
        root: The storage.
        groups: Which row groups each shard still lacks.
        reading: How samples are read.
        sae: Directory of the SAE.
        weights: Directory of the feature weights.
        score: δ and the readings.
    """

    def __init__(
        self,
        *,
        root: Path,
        groups: ShardGroups,
        reading: Reading,
        sae: Path,
        weights: Path,
        score: ScoreSettings,
    ) -> None:
        self.table = ScoreTable(root)
        self.groups = groups
        self.score = score
        self.weights = FeatureWeights.from_table(pq.read_table(weights / WEIGHTS_FILE))
        self.encoder = Encoder(reading, sae)

    def work(self, shard: ShardSpec, samples: Sequence[Sample | Rejection]) -> dict[str, Any]:
        """Write one shard's row groups and their marks; return the counts."""
        ready = self.encoder.prepare(samples)
        parts: dict[str, list[pa.Table]] = {scorer: [] for scorer in SCORERS}
        for indices, batch, codes in self.encoder.encode(ready):
            ids = [ready.samples[i].sample_id for i in indices]
            ordinals = [ready.samples[i].ordinal for i in indices]
            scored = score_batch(
                codes, batch, self.weights, self.score, sample_ids=ids, ordinals=ordinals
            )
            for scorer, table in scored.items():
                parts[scorer].append(table)
        for scorer, group in self.groups[shard.name].items():
            self.table.write(group, _in_corpus_order(parts[scorer]), ready.mark())
        return ready.counts()


def run_score(chain: Chain) -> StageResult:
    """Score every sample of `corpus` that has no live row group, and publish a manifest.

    Raises:
        DataError: No usable row, or too many rejected ones.
    """
    settings, table = chain.settings, ScoreTable(chain.root)
    shards = chain.shards(chain.corpus)
    missing = _missing_groups(chain, table, shards)
    if len(missing) < len(shards):
        sys.stdout.write(f"score: {len(shards) - len(missing)} of {len(shards)} shards are done\n")
    run_shards(
        "score",
        chain.corpus,
        [ShardTask(shard) for shard in shards if shard.name in missing],
        worker_class=ScoreWorker,
        worker_arguments={
            "root": chain.root,
            "groups": missing,
            "reading": Reading.of(settings),
            "sae": chain.sae.directory,
            "weights": chain.weights.directory,
            "score": settings.score,
        },
        run=settings.run,
    )
    groups = [chain.row_group(shard, scorer) for shard in shards for scorer in SCORERS]
    marks = score_marks(chain)
    counts = sum_counts(marks)
    check_rejected("score", counts, settings.run.max_rejected_fraction, rejection_reasons(marks))
    table.publish(groups)
    return StageResult(counts["rows"], counts["rejected"], len(missing) < len(shards))


def _missing_groups(
    chain: Chain, table: ScoreTable, shards: Sequence[ShardSpec]
) -> dict[str, dict[str, RowGroup]]:
    """Return, for each shard that lacks one, the row groups still to be written."""
    missing: dict[str, dict[str, RowGroup]] = {}
    for shard in shards:
        for scorer in SCORERS:
            group = chain.row_group(shard, scorer)
            if table.mark(group) is None:
                missing.setdefault(shard.name, {})[scorer] = group
    return missing


def _in_corpus_order(parts: Sequence[pa.Table]) -> pa.Table:
    """Join the tables of a shard's batches, which come by length, in order of the rows."""
    if not parts:
        return SCORE_SCHEMA.empty_table()
    return pa.concat_tables(parts).sort_by("ordinal")
