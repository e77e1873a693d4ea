"""Corpus to hidden states: a model in each actor, one Arrow file per shard."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from raysae.activations import CacheSettings, ShardWriter, write_dataset_index
from raysae.artifacts import Artifact, ShardSpec
from raysae.sample import Rejection, Sample
from raysae.stages._hidden_states import HiddenStates, Reading, split_by_sample
from raysae.stages._pool import ShardTask, check_rejected, run_shards
from raysae.stages.chain import Chain
from raysae.stages.result import StageResult, finished_marks, rejection_reasons, sum_counts


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
        for indices, batch in self.hidden_states.run(ready):
            for index, tokens in zip(indices, split_by_sample(batch), strict=True):
                sample = ready.samples[index]
                writer.add(index, sample.sample_id, sample.ordinal, tokens)
        files = writer.finish()
        self.artifact.mark_shard(
            shard.name,
            files.names,
            {
                "shard": asdict(shard),
                **ready.mark(),
                "cached": asdict(files),
                "d_in": self.hidden_states.model.d_in,
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
    artifact.begin()
    started = time.monotonic()
    missing = artifact.missing_shards(shards)
    if len(missing) < len(shards):
        sys.stdout.write(f"cache: {len(shards) - len(missing)} of {len(shards)} shards are done\n")
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
        run=settings.run,
    )
    marks = finished_marks(artifact, shards)
    counts = sum_counts(marks)
    check_rejected("cache", counts, settings.run.max_rejected_fraction, rejection_reasons(marks))
    write_dataset_index(artifact.directory, [mark["cached"]["data"] for mark in marks])
    artifact.finish(
        {
            **counts,
            "d_in": marks[0]["d_in"],
            "shards": [mark["cached"] for mark in marks],
            "rejections": rejection_reasons(marks),
            "seconds": time.monotonic() - started,
        }
    )
    return StageResult(counts["rows"], counts["rejected"], len(missing) < len(shards))
