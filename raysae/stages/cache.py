"""Corpus to hidden states: a model in each actor, one Arrow file per shard and layer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from raysae.activations import (
    CachedShard,
    CacheSettings,
    Compression,
    Memory,
    ShardWriter,
    write_dataset_index,
)
from raysae.artifacts import ATTEMPTS, Artifact, ShardSpec
from raysae.sample import Rejection, Sample
from raysae.stages._hidden_states import HiddenStates, Reading, split_by_sample
from raysae.stages._pool import Publish, ShardTask, check_rejected, run_shards
from raysae.stages._snapshots import record_snapshot
from raysae.stages.chain import Chain
from raysae.stages.result import (
    ShardTotals,
    StageResult,
    finished_counts,
    missing_shards,
)


class CacheWorker:
    """Turns shards into Arrow files.

    Args:
        artifacts: Where they go, by layer; the model ends with the last of them.
        reading: How samples are read.
        cache: Which tokens are kept.
        compression: How token files are stored.
    """

    def __init__(
        self,
        *,
        artifacts: Mapping[int, Artifact],
        reading: Reading,
        cache: CacheSettings,
        compression: Compression,
    ) -> None:
        self.artifacts = artifacts
        self.cache = cache
        self.compression = compression
        self.dtype = reading.model.dtype
        self.memory = Memory()
        self.hidden_states = HiddenStates(reading)

    def finished(self, shard: ShardSpec) -> dict[str, Any] | None:
        """Return the counts of a shard that is complete in every layer, else None."""
        counts = None
        for artifact in self.artifacts.values():
            counts = finished_counts(artifact, shard)
            if counts is None:
                return None
        return counts

    def work(self, shard: ShardSpec, samples: Sequence[Sample | Rejection]) -> Publish:
        """Compute one shard's hidden states, in the layers that lack it."""
        started = time.monotonic()
        ready = self.hidden_states.prepare(samples)
        layers = {
            layer: (ready.twin(), self._writer(layer, shard)) for layer in self._lacking(shard)
        }
        shards = {layer: twin for layer, (twin, _) in layers.items()}
        for layer, (indices, batch) in self.hidden_states.run_layers(shards, on_host=True):
            for index, tokens in zip(indices, split_by_sample(batch), strict=True):
                sample = ready.samples[index]
                layers[layer][1].add(index, sample.sample_id, sample.ordinal, tokens)

        parts = [
            (layer, writer, {"shard": asdict(shard), **twin.mark()})
            for layer, (twin, writer) in layers.items()
        ]
        counts = layers[max(layers)][0].counts()

        def publish() -> dict[str, Any]:
            written = 0
            while parts:
                layer, writer, mark = parts.pop()
                files = writer.finish()
                written += sum(record.size for record in files.records)
                mark |= {"cached": files.shard.to_json(), "seconds": time.monotonic() - started}
                self.artifacts[layer].mark_shard(shard.name, files.records, mark)
            return {**counts, "bytes": written}

        return publish

    def _lacking(self, shard: ShardSpec) -> list[int]:
        """Return the layers that a shard is still to be done in, the last one if it is in none."""
        *before, last = self.artifacts
        lacking = [one for one in before if finished_counts(self.artifacts[one], shard) is None]
        if lacking and finished_counts(self.artifacts[last], shard) is not None:
            return lacking
        return [*lacking, last]

    def _writer(self, layer: int, shard: ShardSpec) -> ShardWriter:
        return ShardWriter(
            self.artifacts[layer].directory,
            shard.name,
            self.hidden_states.model.d_in,
            self.dtype,
            self.cache,
            compression=self.compression,
            memory=self.memory,
        )


def run_cache(chain: Chain) -> StageResult:
    """Cache the hidden states of `sae_corpus`; shards that are complete are left alone.

    Raises:
        DataError: No usable row, too many rejected rows, or a model that cannot be read.
    """
    artifacts, settings = chain.caches, chain.settings
    shards = chain.shards(chain.sae_corpus)
    for artifact in artifacts.values():
        artifact.begin(len(shards))  # First, so that the snapshot is needed before it is looked up.
    record_snapshot(chain.sae_snapshot, chain.sae_corpus.snapshot)
    started = time.monotonic()
    lacking = [
        missing_shards(_named(layer, artifacts), artifact, shards)
        for layer, artifact in artifacts.items()
    ]
    wanted = {shard for one in lacking for shard in one}
    run_shards(
        "cache",
        chain.sae_corpus,
        [ShardTask(shard) for shard in shards if shard in wanted],
        worker_class=CacheWorker,
        worker_arguments={
            "artifacts": artifacts,
            "reading": Reading.of(settings),
            "cache": settings.cache,
            "compression": settings.run.compress_cache,
        },
        attempts=chain.activations.directory / ATTEMPTS,
        model=settings.model,
        run=settings.run,
    )
    for artifact in artifacts.values():
        totals = _finish(artifact, shards, settings.run.max_rejected_fraction, started)
    rows, rejected = totals.counts["rows"], totals.counts["rejected"]
    return StageResult(rows, rejected, any(len(one) < len(shards) for one in lacking))


def _named(layer: int, artifacts: Mapping[int, Artifact]) -> str:
    """Return what the lines about one of the caches begin with."""
    return "cache" if len(artifacts) == 1 else f"cache of layer {layer}"


def _finish(
    artifact: Artifact, shards: Sequence[ShardSpec], max_rejected: float, started: float
) -> ShardTotals:
    """Add up one layer's marks, and write what says that its cache is complete."""
    totals, names, rows, cached = ShardTotals(), [], [], None
    for mark in artifact.marks(shards):
        totals.add(mark)
        cached = CachedShard.of_mark(mark, str(artifact.directory))
        names.append(cached.data)
        rows.append(cached.rows)
    check_rejected("cache", totals.counts, max_rejected, totals.reasons)
    assert cached is not None, "a usable row is in a shard"
    index = write_dataset_index(artifact.directory, names, cached.d_in, cached.dtype)
    artifact.finish(
        {
            **totals.to_json(),
            "d_in": cached.d_in,
            "data_files": names,
            "data_rows": rows,
            "seconds": time.monotonic() - started,
        },
        index,
        shards,
    )
    return totals
