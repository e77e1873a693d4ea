"""A sample of the corpus to feature weights: shards collect top tokens, one task merges them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from raysae.artifacts import (
    ATTEMPTS,
    CHECKSUM,
    Artifact,
    FileRecord,
    Publication,
    ShardSpec,
    fetched_whole,
)
from raysae.sample import Rejection, Sample
from raysae.scoring import (
    FeatureWeights,
    TopTokens,
    WeightSettings,
    draw_ordinals,
    read_top_tokens,
    write_top_tokens,
)
from raysae.stages._encoder import Encoder
from raysae.stages._hidden_states import Reading
from raysae.stages._outcome import finish_once
from raysae.stages._pool import (
    Publish,
    ShardTask,
    check_rejected,
    run_shards,
    unwrapped_errors,
)
from raysae.stages._snapshots import record_snapshot
from raysae.stages.chain import Chain
from raysae.stages.connection import connect
from raysae.stages.result import ShardTotals, StageResult, finished_counts, missing_shards
from raysae.storage import Directory, to_json

WEIGHTS_FILE = "weights.parquet"
TOP_TOKENS_FILE = "top_tokens.arrow"
STRONGEST_FILE = "strongest.json"
"""The features with the largest weights and their top tokens, for the report."""

SHOWN_FEATURES = 24


class WeightsWorker:
    """Collects each feature's highest tokens over a shard's drawn samples.

    Args:
        artifact: Where the states go.
        reading: How samples are read.
        sae: Directory of the SAE.
        weights: What is collected.
    """

    def __init__(
        self, *, artifact: Artifact, reading: Reading, sae: Directory, weights: WeightSettings
    ) -> None:
        self.artifact = artifact
        self.weights = weights
        self.encoder = Encoder(reading, sae)

    def finished(self, shard: ShardSpec) -> dict[str, Any] | None:
        """Return the counts of a shard that is complete, else None."""
        return finished_counts(self.artifact, shard)

    def work(self, shard: ShardSpec, samples: Sequence[Sample | Rejection]) -> Publish:
        """Collect one shard's highest tokens."""
        ready = self.encoder.prepare(samples)
        top = TopTokens(self.encoder.sae.d_sae, self.encoder.sae.d_in, self.weights)
        for indices, batch, codes in self.encoder.encode(ready):
            ordinals = np.array([ready.samples[i].ordinal for i in indices], dtype=np.int64)
            top.update(codes, batch, ordinals[batch.sample_n])
        content, counts = {"shard": asdict(shard), **ready.mark()}, ready.counts()

        def publish() -> dict[str, Any]:
            files = Publication(self.artifact.directory)
            _write_state(top, files, f"{shard.name}-{CHECKSUM}.top_tokens.arrow")
            self.artifact.mark_shard(shard.name, files.records, content)
            return counts

        return publish


def run_weights(chain: Chain) -> StageResult:
    """Weigh every feature over the drawn samples of `corpus`.

    Raises:
        DataError: No usable row, or too many rejected ones.
    """
    artifact, settings = chain.weights, chain.settings
    started = time.monotonic()
    tasks = _drawn_tasks(chain)
    artifact.begin(len(tasks))  # First, so that the snapshot is needed before it is looked up.
    record_snapshot(chain.snapshot, chain.corpus.snapshot)
    shards = [task.shard for task in tasks]
    missing = {shard.name for shard in missing_shards("weights", artifact, shards)}
    run_shards(
        "weights",
        chain.corpus,
        [task for task in tasks if task.shard.name in missing],
        worker_class=WeightsWorker,
        worker_arguments={
            "artifact": artifact,
            "reading": Reading.of(settings),
            "sae": chain.sae.directory,
            "weights": settings.weights,
        },
        attempts=artifact.directory / ATTEMPTS,
        model=settings.model,
        run=settings.run,
    )
    totals, states = ShardTotals(), []
    for mark in artifact.marks(shards):
        totals.add(mark)
        states.append(mark["files"][0]["name"])
    check_rejected("weights", totals.counts, settings.run.max_rejected_fraction, totals.reasons)

    def make(files: Publication) -> dict[str, Any]:
        merged = _merge_on_cluster(artifact.directory, states, files)
        return {**totals.to_json(), "summary": merged, "seconds": time.monotonic() - started}

    summary = finish_once(artifact, make, shards)["summary"]
    sys.stdout.write(
        f"weights: {summary['weighted']:,} of {summary['features']:,} features have a weight, "
        f"mean {summary['mean']:.3f}\n"
    )
    rows, rejected = totals.counts["rows"], totals.counts["rejected"]
    return StageResult(rows, rejected, len(missing) < len(tasks))


def _drawn_tasks(chain: Chain) -> list[ShardTask]:
    """Return the shards that hold drawn samples, each with the ordinals wanted of it.

    Shards without any are left out, so that the others' names have gaps.
    """
    settings = chain.settings.weights
    drawn = draw_ordinals(chain.corpus.snapshot.rows, settings.n_samples, settings.seed)
    tasks = []
    for shard in chain.shards(chain.corpus):
        low, high = np.searchsorted(drawn, [shard.first_ordinal, shard.first_ordinal + shard.rows])
        if low < high:
            tasks.append(ShardTask(shard, tuple(int(o) for o in drawn[low:high])))
    return tasks


def _merge_on_cluster(
    directory: Directory, states: Sequence[str], files: Publication
) -> dict[str, Any]:
    """Merge the shards' states in a task, so that the driver holds none of them."""
    connect()
    with unwrapped_errors():
        summary, records = ray.get(
            ray.remote(num_cpus=1)(merge_states).remote(directory, states, files)
        )
    files.records = records
    return dict(summary)


def merge_states(
    directory: Directory, states: Sequence[str], files: Publication
) -> tuple[dict[str, Any], list[FileRecord]]:
    """Merge states one by one, and write weights and top tokens.

    Args:
        directory: Where the states are.
        states: Their names.
        files: Where the result goes.

    Returns:
        The weights' summary, and all that was written.
    """
    merged = _read_state(directory, states[0])
    for name in states[1:]:
        merged.merge(_read_state(directory, name))
    weights = merged.weights()
    with files.writing(WEIGHTS_FILE) as path:
        pq.write_table(weights.to_table(), path)
    _write_state(merged, files, TOP_TOKENS_FILE)
    strongest = strongest_features(merged, weights)
    files.put_bytes(STRONGEST_FILE, to_json({"features": strongest}))
    return weights.summary(), files.records


def read_weights(directory: Directory) -> FeatureWeights:
    """Read the weights of a finished artifact.

    Raises:
        DataError: They are not there, or not what was written.
    """
    with fetched_whole(directory, [WEIGHTS_FILE]) as files:
        # Into memory: the copy is gone when the table is used.
        return FeatureWeights.from_table(pq.read_table(files / WEIGHTS_FILE, memory_map=False))


def strongest_features(top: TopTokens, weights: FeatureWeights) -> list[dict[str, Any]]:
    """Describe the features with the largest weights; equal weights in order of the features."""
    order = np.argsort(-weights.weight_f, kind="stable")[:SHOWN_FEATURES]
    described = []
    for feature in order[weights.weight_f[order] > 0].tolist():
        tokens = top.top_tokens(feature)
        described.append(
            {
                "feature": feature,
                "weight": float(weights.weight_f[feature]),
                "n_text": int(weights.n_text_f[feature]),
                "n_image": int(weights.n_image_f[feature]),
                "fired_text": int(weights.fired_text_f[feature]),
                "fired_image": int(weights.fired_image_f[feature]),
                "text": [tuple(token) for token in tokens.text],
                "image": [tuple(token) for token in tokens.image],
            }
        )
    return described


def _write_state(top: TopTokens, files: Publication, name: str) -> None:
    """Publish a state."""
    with files.writing(name) as path, path.open("wb") as file:
        write_top_tokens(top, file)


def _read_state(directory: Directory, name: str) -> TopTokens:
    """Read a state."""
    return read_top_tokens(pa.BufferReader(directory.map(name)))
