"""What an actor does that gives tokens to a training: a shard's hidden states, part by part."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from raysae.activations import CacheSettings, Memory
from raysae.activations.collected import OrderedTokens, ShardTokens
from raysae.activations.parts import n_parts, shard_parts
from raysae.artifacts import ShardSpec
from raysae.artifacts.marks import write_mark
from raysae.sample import Rejection, Sample
from raysae.stages._hidden_states import HiddenStates, Reading, split_by_sample
from raysae.stages._pool import ShardTask, WorkerActor, described_memory
from raysae.stages.result import counts_of
from raysae.storage import Directory

MARKS = "streamed"
"""Directory, in the artifact's work, of a mark for every shard that was read once."""


@dataclass(frozen=True, slots=True)
class StreamTask(ShardTask):
    """A shard whose tokens are wanted.

    Attributes:
        number: The shard's, in the plan.
        marked: Whether its rows are to be told of in a mark.
    """

    number: int = 0
    marked: bool = False


class StreamWorker:
    """Turns shards into tokens in the order of writing.

    Args:
        reading: How samples are read.
        cache: Which tokens are kept.
    """

    def __init__(self, *, reading: Reading, cache: CacheSettings) -> None:
        self.cache = cache
        self.dtype = reading.model.dtype
        self.memory = Memory()
        self.hidden_states = HiddenStates(reading)

    def finished(self, shard: ShardSpec) -> dict[str, Any] | None:  # noqa: ARG002
        """Return None: nothing of a shard is kept."""
        return None

    def work(
        self, shard: ShardSpec, samples: Sequence[Sample | Rejection]
    ) -> tuple[OrderedTokens, dict[str, Any]]:
        """Return one shard's tokens, and what a mark tells of its rows."""
        ready = self.hidden_states.prepare(samples)
        model = self.hidden_states.model
        tokens = ShardTokens(shard.name, model.d_in, self.dtype, self.cache, self.memory)
        batches = self.hidden_states.run_layers({model.layer: ready}, on_host=True)
        for _, (indices, batch) in batches:
            for index, part in zip(indices, split_by_sample(batch), strict=True):
                sample = ready.samples[index]
                tokens.add(index, sample.sample_id, sample.ordinal, part)
        return tokens.in_order(), ready.mark()


class StreamActor(WorkerActor):
    """Yields a shard's tokens part by part, while another thread may be at work on the next shard.

    Args:
        marks: Where shards are told of.
        part_bytes: Of a part, at most.
        arguments: As `WorkerActor` takes them.
    """

    def __init__(self, marks: Directory, part_bytes: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.marks = marks
        self.part_bytes = part_bytes

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[pa.Table]:  # type: ignore[override]
        task = self.task(batch)
        asked = json.loads(batch["task"][0])
        with self.working:
            started = time.monotonic()
            tokens, told = self.work(task, batch)
        seconds = time.monotonic() - started
        counts = counts_of(told)
        self.metrics.add(counts, seconds)
        if asked["marked"]:
            content = {"shard": asdict(task.shard), **told, "seconds": seconds}
            write_mark(self.marks, task.shard.name, [], content)
        parts = n_parts(tokens, self.part_bytes)
        about = {"number": asked["number"], "parts": parts, "counts": counts}
        with described_memory(task.shard):
            for number, part in enumerate(shard_parts(tokens, self.part_bytes), start=1):
                yield _row({**about, "part": number}, part)
            tokens.release()


def _row(about: Mapping[str, Any], part: pa.Buffer) -> pa.Table:
    """Make a row of Ray Data; as anything but Arrow it would be copied, or lose trailing zeros."""
    offsets = pa.array([0, part.size], pa.int64()).buffers()[1]
    tokens = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, part])
    return pa.table({"about": [json.dumps(about)], "tokens": tokens})
