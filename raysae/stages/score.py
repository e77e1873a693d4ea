"""Corpus to scores: model, SAE and reduction in one actor; nothing dense is kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from raysae.artifacts import ATTEMPTS, RowGroup, ScoreTable, ShardSpec
from raysae.sample import Rejection, Sample
from raysae.scoring import (
    SCORE_SCHEMA,
    SCORERS,
    ScoreSettings,
    score_batch,
)
from raysae.stages._encoder import Encoder
from raysae.stages._hidden_states import Reading
from raysae.stages._pool import Publish, ShardTask, check_rejected, run_shards
from raysae.stages._snapshots import record_snapshot
from raysae.stages.chain import Chain
from raysae.stages.live_scores import row_groups, score_marks
from raysae.stages.result import ShardTotals, StageResult, counts_of, report_lost
from raysae.stages.weights import read_weights
from raysae.storage import Directory

ShardGroups = Mapping[str, Mapping[str, RowGroup]]
"""Shard name → scorer → the row group to be written."""


class ScoreWorker:
    """Scores shards.

    Args:
        table: Where the scores go.
        groups: Which row groups each shard still lacks.
        reading: How samples are read.
        sae: Directory of the SAE.
        weights: Directory of the feature weights.
        inputs: What each scorer's marks tell they were made from.
        score: δ and the readings.
    """

    def __init__(
        self,
        *,
        table: ScoreTable,
        groups: ShardGroups,
        reading: Reading,
        sae: Directory,
        weights: Directory,
        inputs: Mapping[str, Mapping[str, str]],
        score: ScoreSettings,
    ) -> None:
        self.table = table
        self.groups = dict(groups)
        self.inputs = inputs
        self.score = score
        self.weights = read_weights(weights)
        self.encoder = Encoder(reading, sae)

    def finished(self, shard: ShardSpec) -> dict[str, Any] | None:
        """Return the counts of a shard whose row groups are complete, else None.

        Those that an attempt had finished before it was lost are not written again.
        """
        groups = self.groups[shard.name]
        # The first one that is written: of most shards nothing is there yet.
        mark = self.table.mark(next(iter(groups.values())))
        if mark is None:
            return None
        lacking = set(self.table.missing(groups.values()).groups)
        if not lacking:
            return counts_of(mark)
        self.groups[shard.name] = {name: one for name, one in groups.items() if one in lacking}
        return None

    def work(self, shard: ShardSpec, samples: Sequence[Sample | Rejection]) -> Publish:
        """Score one shard."""
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
        mark, counts = ready.mark(), ready.counts()

        def publish() -> dict[str, Any]:
            for scorer, group in self.groups[shard.name].items():
                extra = {**mark, "inputs": dict(self.inputs[scorer])}
                self.table.write(group, _in_corpus_order(parts[scorer]), extra)
            return counts

        return publish


def run_score(chain: Chain) -> StageResult:
    """Score every sample of `corpus` that has no live row group, and publish a manifest.

    Raises:
        DataError: No usable row, or too many rejected ones.
    """
    settings, table = chain.settings, ScoreTable(chain.root)
    shards = chain.shards(chain.corpus)
    record_snapshot(chain.snapshot, chain.corpus.snapshot)
    missing = _missing_groups(chain, table, shards)
    if len(missing) < len(shards):
        sys.stdout.write(f"score: {len(shards) - len(missing)} of {len(shards)} shards are done\n")
    run_shards(
        "score",
        chain.corpus,
        [
            # Row groups of many corpora and models lie in one table, shards of one name among them.
            ShardTask(shard, attempt=next(iter(missing[shard.name].values())).key)
            for shard in shards
            if shard.name in missing
        ],
        worker_class=ScoreWorker,
        worker_arguments={
            "table": table,
            "groups": missing,
            "reading": Reading.of(settings),
            "sae": chain.sae.directory,
            "weights": chain.weights.directory,
            "inputs": {scorer: chain.score_inputs(scorer) for scorer in SCORERS},
            "score": settings.score,
        },
        attempts=table.directory / ATTEMPTS,
        model=settings.model,
        run=settings.run,
    )
    totals = ShardTotals.of(score_marks(chain))
    check_rejected("score", totals.counts, settings.run.max_rejected_fraction, totals.reasons)
    table.publish(row_groups(chain), chain.series)
    rows, rejected = totals.counts["rows"], totals.counts["rejected"]
    return StageResult(rows, rejected, len(missing) < len(shards))


def _missing_groups(
    chain: Chain, table: ScoreTable, shards: Sequence[ShardSpec]
) -> dict[str, dict[str, RowGroup]]:
    """Return, for each shard that lacks one, the row groups still to be written."""
    names: dict[RowGroup, str] = {}
    for shard in shards:
        for scorer in SCORERS:
            names[chain.row_group(shard, scorer)] = shard.name
    lacking, problems = table.missing(names)
    report_lost("score", problems)
    missing: dict[str, dict[str, RowGroup]] = {}
    for group in lacking:
        missing.setdefault(names[group], {})[group.scorer] = group
    return missing


def _in_corpus_order(parts: Sequence[pa.Table]) -> pa.Table:
    """Join the tables of a shard's batches, which come by length, in order of the rows."""
    if not parts:
        return SCORE_SCHEMA.empty_table()
    return pa.concat_tables(parts).sort_by("ordinal")
