"""Metrics that Ray exports for Prometheus, as `ray_raysae_…`, by stage, node and process."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Histogram

COUNTERS = {
    "shards": ("raysae_shards_total", "Shards done."),
    "rows": ("raysae_rows_total", "Corpus rows used."),
    "rejected": ("raysae_rejected_rows_total", "Corpus rows rejected."),
    "tokens": ("raysae_tokens_total", "Tokens read."),
    "bytes": ("raysae_written_bytes_total", "Bytes published."),
}
"""Of an actor, by what its shards' counts call them."""

SECONDS = ("raysae_shard_seconds", "Seconds that a shard took in its actor.")

SECONDS_BOUNDS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]

_TAG = "stage"


class ShardMetrics:
    """What an actor tells of the shards that it has done.

    Args:
        stage: The stage's name, the metrics' tag.
    """

    def __init__(self, stage: str) -> None:
        self._counters = {
            name: Counter(metric, description, tag_keys=(_TAG,))
            for name, (metric, description) in COUNTERS.items()
        }
        self._seconds = Histogram(*SECONDS, boundaries=SECONDS_BOUNDS, tag_keys=(_TAG,))
        self._tags = {_TAG: stage}

    def add(self, counts: Mapping[str, float], seconds: float) -> None:
        """Count a shard.

        Args:
            counts: As a worker returns them.
            seconds: That it took.
        """
        for name, counter in self._counters.items():
            value = 1.0 if name == "shards" else float(counts.get(name, 0))
            if value > 0:  # Ray's counters refuse to count nothing.
                counter.inc(value, self._tags)
        self._seconds.observe(seconds, self._tags)
