"""Corpus to hidden states: a model in each actor, one Arrow file per shard."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from raysae.activations import CacheSettings, ShardWriter, write_dataset_index
from raysae.artifacts import ATTEMPTS, Artifact, ShardSpec
from raysae.sample import Rejection, Sample
from raysae.stages._hidden_states import HiddenStates, Reading, split_by_sample
from raysae.stages._pool import ShardTask, check_rejected, run_shards
from raysae.stages._snapshots import record_snapshot
from raysae.stages.chain import Chain
from raysae.stages.result import ShardTotals, StageResult, finished_counts, missing_shards


class CacheWorker:
    """Turns shards into Arrow files.

    Args:
        artifact: Where they go.
        reading: How samples are read.
        cache: Which tokens are kept.
    """

    def __init__(self, *, artifact: Artifact, reading: Reading, cache: CacheSettings) -> None:
        self.artifact = artifact
        self.cache = cache
        self.dtype = reading.model.dtype
        self.hidden_states = HiddenStates(reading)

    def finished(self, shard: ShardSpec) -> dict[str, Any] | None:
        """Return the counts of a shard that is complete, else None."""
        return finished_counts(self.artifact, shard)

    def work(self, shard: ShardSpec, samples: Sequence[Sample | Rejection]) -> dict[str, Any]:
        """Write one shard's file, its sample table and its mark; return the counts."""
        started = time.monotonic()
        ready = self.hidden_states.prepare(samples)
        writer = ShardWriter(
            self.artifact.directory,
            shard.name,
            self.hidden_states.model.d_in,
            self.dtype,
            self.cache,
        )
        for indices, batch in self.hidden_states.run(ready, on_host=True):
            for index, tokens in zip(indices, split_by_sample(batch), strict=True):
                sample = ready.samples[index]
                writer.add(index, sample.sample_id, sample.ordinal, tokens)
        files = writer.finish()
        self.artifact.mark_shard(
            shard.name,
            files.records,
            {
                "shard": asdict(shard),
                **ready.mark(),
                "cached": files.shard.to_json(),
                "seconds": time.monotonic() - started,
            },
        )
        return ready.counts()


def run_cache(chain: Chain) -> StageResult:
    """Cache the hidden states of `sae_corpus`; shards that are complete are left alone.

    Raises:
        DataError: No usable row, too many rejected rows, or a model that cannot be read.
    """
    artifact, settings = chain.activations, chain.settings
    shards = chain.shards(chain.sae_corpus)
    artifact.begin(len(shards))  # First, so that the snapshot is needed before it is looked up.
    record_snapshot(chain.sae_snapshot, chain.sae_corpus.snapshot)
    started = time.monotonic()
    missing = missing_shards("cache", artifact, shards)
    run_shards(
        "cache",
        chain.sae_corpus,
        [ShardTask(shard) for shard in missing],
        worker_class=CacheWorker,
        worker_arguments={
            "artifact": artifact,
            "reading": Reading.of(settings),
            "cache": settings.cache,
        },
        attempts=artifact.directory / ATTEMPTS,
        model=settings.model,
        run=settings.run,
    )
    totals, cached, d_in = ShardTotals(), [], 0
    for mark in artifact.marks(shards):
        totals.add(mark)
        cached.append((mark["cached"]["data"], mark["cached"]["rows"]))
        d_in = mark["cached"]["d_in"]
    check_rejected("cache", totals.counts, settings.run.max_rejected_fraction, totals.reasons)
    index = write_dataset_index(artifact.directory, [name for name, _ in cached])
    artifact.finish(
        {
            **totals.to_json(),
            "d_in": d_in,
            "data_files": [name for name, _ in cached],
            "data_rows": [rows for _, rows in cached],
            "seconds": time.monotonic() - started,
        },
        index,
        shards,
    )
    rows, rejected = totals.counts["rows"], totals.counts["rejected"]
    return StageResult(rows, rejected, len(missing) < len(shards))
