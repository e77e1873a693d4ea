"""Shards through a Ray Data actor pool whose tokens come back, in the order in which they are read.

One Ray row is one part of a shard, of 64 MiB at most, so that what waits in the object store is
bounded in parts. Every rank of a training runs such a pool of its own, in its own process: no rank
ever waits for another one's data, and what Ray Data's `streaming_split` would have to keep in step
(epochs and blocks of different sizes) need not be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, ExecutionResources
from ray.data._internal.execution.bundle_queue import ReorderingBundleQueue
from ray.data._internal.execution.execution_callback import ExecutionCallback

from raysae.activations import CacheSettings
from raysae.activations.format import MAX_BATCH_BYTES
from raysae.activations.parts import ShardInMemory
from raysae.artifacts import ATTEMPTS, Attempts
from raysae.corpora import Corpus
from raysae.settings import RunSettings
from raysae.stages._capacity import Resources, check_fits, fits_now, may_grow
from raysae.stages._hidden_states import Reading
from raysae.stages._pool import (
    READER_CPUS,
    described_deaths,
    max_queued,
    through_actors,
    to_text,
    unwrapped_errors,
)
from raysae.stages._steady import steady_context
from raysae.stages._stream_worker import MARKS, StreamActor, StreamTask, StreamWorker
from raysae.stages.connection import connect
from raysae.storage import Directory

READERS_PER_ACTOR = 4
"""Shards that are read at the same time, at most; Ray lets fewer run where cores are few."""

_SHARE = "raysae.share"


@dataclass(frozen=True)
class StreamPlan:
    """What every pool of a training has in common.

    Attributes:
        corpus: The corpus that the shards are cut from.
        reading: How samples are read.
        cache: Which tokens are kept.
        run: Actors of one pool, retries.
        work: Directory of marks and attempts, which is removed when the training is finished.
        pools: How many pools there are; they share the object store.
        part_bytes: Of a row of Ray Data, at most.
    """

    corpus: Corpus
    reading: Reading
    cache: CacheSettings
    run: RunSettings
    work: Directory
    pools: int
    part_bytes: int = MAX_BATCH_BYTES


def pools(run: RunSettings, count: int, rank: Resources) -> RunSettings:
    """Return the settings of each of several pools that all fit beside the ranks.

    None may grow into the place of another one's first actors, which would be waited for.

    Args:
        run: The job's settings.
        count: How many pools, and ranks.
        rank: What each rank has.

    Raises:
        SettingsError: Not even the smallest pools fit.
    """
    connect()
    actor = Resources(run.cpus_per_actor, run.gpus_per_actor)

    def needed(actors: int) -> list[Resources]:
        return count * [rank, *actors * [actor], Resources(READER_CPUS, 0)]

    check_fits(
        f"{count} rank(s) of {rank} each, and for each {run.min_actors} actor(s) of {actor} and a "
        f"reader of {READER_CPUS} CPUs,",
        needed(run.min_actors),
        ("run.cpus_per_actor", "run.gpus_per_actor", "train.workers", "train.cpus_per_worker"),
    )
    if fits_now(needed(run.max_actors)) or may_grow():
        return run
    sizes = range(run.max_actors - 1, run.min_actors, -1)
    largest = next((n for n in sizes if fits_now(needed(n))), run.min_actors)
    return replace(run, max_actors=largest)


class StreamedShard(NamedTuple):
    """A shard that has arrived.

    Attributes:
        tokens: All of them.
        counts: Rows, rejected rows and tokens, as marks name them.
    """

    tokens: ShardInMemory
    counts: dict[str, int]


class NoFinishedTasks(ExecutionCallback):
    """Drops what an ordered queue keeps of tasks whose output was taken."""

    def on_execution_step(self, executor: Any) -> None:
        """Drop it at each step of the execution."""
        for op in executor._topology:  # noqa: SLF001 - there is no public way
            queue = getattr(op, "_output_queue", None)
            if isinstance(queue, ReorderingBundleQueue):
                taken = [key for key in queue._inner if key < queue._current_key]  # noqa: SLF001
                for key in taken:
                    del queue._inner[key]  # noqa: SLF001
                    queue._finalized_keys.discard(key)  # noqa: SLF001


class OwnShare(ExecutionCallback):
    """Lets a pool count on what was planned for it.

    Ray Data would count on its part of what each node has left, in whole numbers: of the last core
    or GPU of a node, two pools would count on nothing, and wait for it without end.
    """

    def before_execution_starts(self, executor: Any) -> None:
        """Replace what the pool takes for its part of the cluster."""
        planned = executor._data_context.get_config(_SHARE)  # noqa: SLF001 - no public way

        def share() -> ExecutionResources:
            total = ray.cluster_resources()
            return ExecutionResources(
                cpu=planned["cpu"],
                gpu=planned["gpu"],
                memory=total.get("memory", 0.0) / planned["pools"],
                object_store_memory=total.get("object_store_memory", 0.0) / planned["pools"],
            )

        executor._cluster_autoscaler.get_total_resources = share  # noqa: SLF001


class ShardStream:
    """Shards that are computed while others are used, in the order of their tasks.

    Args:
        plan: How.
        tasks: Yields them, maybe without an end: called in a process of its own, where they are
            made while they are wanted.
    """

    def __init__(self, plan: StreamPlan, tasks: Callable[[], Iterator[StreamTask]]) -> None:
        connect()
        self._max_retries = plan.run.max_retries
        self._stopping = False
        with DataContext.current(_context(plan)):
            source = ray.data.from_items([{"number": 0}], override_num_blocks=1).flat_map(
                _described,
                fn_kwargs={"tasks": tasks},
                compute=ray.data.TaskPoolStrategy(size=1),
                num_cpus=0,
                max_retries=-1,
            )
        attempts = plan.work / ATTEMPTS
        self._dataset = through_actors(
            source,
            plan.corpus,
            StreamActor,
            (
                plan.work / MARKS,
                plan.part_bytes,
                "stream",
                StreamWorker,
                {"reading": plan.reading, "cache": plan.cache},
                Attempts(attempts, "work", lasting=True),
                plan.reading.model,
            ),
            reading=Attempts(attempts, "read", lasting=True),
            run=plan.run,
        )

    def shards(self) -> Generator[StreamedShard, None, None]:
        """Yield the shards; none any more after `stop`.

        Raises:
            RaysaeError: What an actor raised, or that processes died too often.
        """
        with unwrapped_errors(), described_deaths("train", self._max_retries):
            parts: list[pa.Buffer] = []
            # Fetched one at a time: the windows are what is read ahead.
            for row in self._dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                if self._stopping:
                    return
                about = json.loads(row["about"][0].as_py())
                # A copy: what lies in the object store would stay there as long as it is used.
                parts.append(pa.py_buffer(row["tokens"][0].as_buffer().to_pybytes()))
                del row
                assert about["part"] == len(parts), "parts come in order"
                if about["part"] == about["parts"]:
                    yield _arrived(about, parts)

    def stop(self) -> None:
        """End the pool and its actors, from any thread; what is computed is lost."""
        self._stopping = True
        # There is no public way while another thread waits for the next part.
        executor = self._dataset._current_executor  # noqa: SLF001
        if executor is not None:
            executor.shutdown(force=True)


def _arrived(about: Mapping[str, Any], parts: list[pa.Buffer]) -> StreamedShard:
    """Make a shard of its parts, of which nobody else shall hold any."""
    number = about["number"]
    shard = ShardInMemory(number, parts, f"shard {number}")
    parts.clear()
    return StreamedShard(shard, about["counts"])


def _context(plan: StreamPlan) -> DataContext:
    """Return settings for one of several pools, whose rows come in the order of their tasks."""
    context = steady_context(max_queued(plan.run.max_actors))
    context.execution_options.preserve_order = True
    run = plan.run
    cpus = run.max_actors * (run.cpus_per_actor + READERS_PER_ACTOR * READER_CPUS)
    gpus = run.max_actors * run.gpus_per_actor
    context.set_config(_SHARE, {"cpu": cpus, "gpu": gpus, "pools": plan.pools})
    context.custom_execution_callback_classes.extend([NoFinishedTasks, OwnShare])
    return context


def _described(
    row: dict[str, Any],  # noqa: ARG001 - what is repeated is the call
    tasks: Callable[[], Iterator[StreamTask]],
) -> Iterator[dict[str, str]]:
    """Describe tasks, while they are wanted."""
    for task in tasks():
        yield {"task": to_text(task)}
