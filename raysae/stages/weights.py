"""A sample of the corpus to feature weights: shards collect top tokens, one task merges them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import ray

from raysae.artifacts import Artifact, ShardSpec
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
from raysae.stages._pool import ShardTask, check_rejected, run_shards, unwrapped_errors
from raysae.stages.chain import Chain
from raysae.stages.connection import connect
from raysae.stages.result import StageResult, finished_marks, rejection_reasons, sum_counts
from raysae.storage import put_file, put_json, temporary_sibling

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
        self, *, artifact: Artifact, reading: Reading, sae: Path, weights: WeightSettings
    ) -> None:
        self.artifact = artifact
        self.weights = weights
        self.encoder = Encoder(reading, sae)

    def work(self, shard: ShardSpec, samples: Sequence[Sample | Rejection]) -> dict[str, Any]:
        """Write one shard's state and its mark; return the counts."""
        ready = self.encoder.prepare(samples)
        top = TopTokens(self.encoder.sae.d_sae, self.encoder.sae.d_in, self.weights)
        for indices, batch, codes in self.encoder.encode(ready):
            ordinals = np.array([ready.samples[i].ordinal for i in indices], dtype=np.int64)
            top.update(codes, batch, ordinals[batch.sample_n])
        name = f"{shard.name}.top_tokens.arrow"
        _write_state(top, self.artifact.directory / name)
        self.artifact.mark_shard(
            shard.name,
            [name],
            {"shard": asdict(shard), **ready.mark()},
        )
        return ready.counts()


def run_weights(chain: Chain) -> StageResult:
    """Weigh every feature over the drawn samples of `corpus`.

    Raises:
        DataError: No usable row, or too many rejected ones.
    """
    artifact, settings = chain.weights, chain.settings
    started = time.monotonic()
    artifact.begin()
    tasks = _drawn_tasks(chain)
    missing = [task for task in tasks if artifact.shard_mark(task.shard.name) is None]
    run_shards(
        "weights",
        chain.corpus,
        missing,
        worker_class=WeightsWorker,
        worker_arguments={
            "artifact": artifact,
            "reading": Reading.of(settings),
            "sae": chain.sae.directory,
            "weights": settings.weights,
        },
        run=settings.run,
    )
    marks = finished_marks(artifact, [task.shard for task in tasks])
    counts = sum_counts(marks)
    check_rejected("weights", counts, settings.run.max_rejected_fraction, rejection_reasons(marks))
    summary = _merge_on_cluster(artifact.directory, [mark["files"][0]["name"] for mark in marks])
    artifact.finish({**counts, "summary": summary, "seconds": time.monotonic() - started})
    sys.stdout.write(
        f"weights: {summary['weighted']:,} of {summary['features']:,} features have a weight, "
        f"mean {summary['mean']:.3f}\n"
    )
    return StageResult(counts["rows"], counts["rejected"], len(missing) < len(tasks))


def _drawn_tasks(chain: Chain) -> list[ShardTask]:
    """Return the shards that hold drawn samples, each with the ordinals wanted of it.

    How the corpus is cut does not change the weights and is not part of their id; so shards are
    named by their rows here, and what an interrupted run with another cut left is not mistaken.
    """
    settings = chain.settings.weights
    drawn = draw_ordinals(chain.corpus.snapshot.rows, settings.n_samples, settings.seed)
    tasks = []
    for shard in chain.shards(chain.corpus):
        low, high = np.searchsorted(drawn, [shard.first_ordinal, shard.first_ordinal + shard.rows])
        if low < high:
            named = replace(shard, name=f"rows-{shard.first_ordinal:010d}-{shard.rows}")
            tasks.append(ShardTask(named, tuple(int(o) for o in drawn[low:high])))
    return tasks


def _merge_on_cluster(directory: Path, states: Sequence[str]) -> dict[str, Any]:
    """Merge the shards' states in a task, so that the driver holds none of them."""
    connect()
    with unwrapped_errors():
        summary: dict[str, Any] = ray.get(
            ray.remote(num_cpus=1)(merge_states).remote(directory, states)
        )
    return summary


def merge_states(directory: Path, states: Sequence[str]) -> dict[str, Any]:
    """Merge states one by one, write weights and top tokens, and return the weights' summary."""
    merged = _read_state(directory / states[0])
    for name in states[1:]:
        merged.merge(_read_state(directory / name))
    weights = merged.weights()
    temporary = temporary_sibling(directory / WEIGHTS_FILE)
    pq.write_table(weights.to_table(), temporary)
    put_file(temporary, directory / WEIGHTS_FILE)
    _write_state(merged, directory / TOP_TOKENS_FILE)
    put_json(directory / STRONGEST_FILE, {"features": strongest_features(merged, weights)})
    return weights.summary()


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


def _write_state(top: TopTokens, final: Path) -> None:
    """Publish a state."""
    temporary = temporary_sibling(final)
    with temporary.open("wb") as file:
        write_top_tokens(top, file)
    put_file(temporary, final)


def _read_state(path: Path) -> TopTokens:
    """Read a state."""
    with path.open("rb") as file:
        return read_top_tokens(file)
