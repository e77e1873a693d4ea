"""Corpus to hidden states: a model in each actor, one Arrow file per shard."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from raysae.activations import CacheSettings, ShardWriter, write_dataset_index
from raysae.artifacts import Artifact, ShardSpec
from raysae.models import ModelSettings
from raysae.sample import Rejection, Sample
from raysae.stages._hidden_states import (
    HiddenStates,
    rejections_json,
    split_by_sample,
    token_counts,
)
from raysae.stages._pool import ShardTask, check_rejected, run_shards
from raysae.stages.chain import Chain
from raysae.stages.result import StageResult, finished_marks, rejection_reasons, sum_counts


class CacheWorker:
    """Turns shards into Arrow files.

    Args:
        artifact: Where they go.
        model: Which model, and how it is read.
        cache: Which tokens are kept.
        device: `cpu` or `cuda`.
        token_budget: Padded tokens in one forward pass.
    """

    def __init__(
        self,
        *,
        artifact: Artifact,
        model: ModelSettings,
        cache: CacheSettings,
        device: str,
        token_budget: int,
    ) -> None:
        self.artifact = artifact
        self.cache = cache
        self.dtype = model.dtype
        self.hidden_states = HiddenStates(model, device, token_budget)

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
        counts = {
            "rows": len(ready.samples),
            "rejected": len(ready.rejections),
            **token_counts(ready.prepared),
        }
        self.artifact.mark_shard(
            shard.name,
            files.names,
            {
                "shard": asdict(shard),
                **counts,
                "rejections": rejections_json(ready.rejections),
                "cached": asdict(files),
                "d_in": self.hidden_states.model.d_in,
                "seconds": time.monotonic() - started,
            },
        )
        return counts


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
            "model": settings.model,
            "cache": settings.cache,
            "device": settings.run.device,
            "token_budget": settings.run.token_budget,
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
