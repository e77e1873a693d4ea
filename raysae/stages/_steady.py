"""Ray Data with a driver whose memory does not depend on the number of blocks.

One block is one shard, and of 10⁵ shards Ray Data keeps three things on the driver: a reference to
each input block, the whole time; what readers have read and no actor took yet, bounded in bytes
only, so that small shards queue up by the thousand, each with its content if that is below 100 KiB;
and statistics of each block, until the end. Together that was 12 KiB a shard.

So shards come from a few blocks that a task takes apart while they are wanted, queues are bounded
in blocks, and statistics are dropped, which nobody reads. Besides, the loss of an actor that has
nothing to do is made an error, for which Ray Data would wait for ever. Queues, statistics and
actors are reached through names that are Ray's own and no promise: constraints.txt holds the
version that was looked at, and tests fail with one that does without them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import ray.data
from ray.core.generated.gcs_pb2 import ActorTableData
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.interfaces.physical_operator import DataOpTask
from ray.exceptions import RayActorError

SHARDS_PER_BLOCK = 1024
"""Of the blocks that shards come from."""

RELEASE_INTERVAL_S = 1.0
"""Seconds between two blocks that Ray Data lets past a full queue, where it fears a standstill."""

BLOCK_BYTES = 1024
"""Bytes of a stored block beside its rows, roughly: for small ones they are most of it."""

GROW_AT = 1.4
SHRINK_AT = 0.3
"""Tasks of an actor, for each that it can run at once, from which its pool grows, and to which it
shrinks: not at every lull, since the next actor has to load a model again."""

_MAX_QUEUED = "raysae.max_queued_blocks"


class ShortQueues(BackpressurePolicy):
    """Stops an operator while as many blocks as are allowed wait in front of the next one."""

    def can_add_input(self, op: Any) -> bool:
        """Whether the operator may begin another task: each that runs will need a place."""
        return self._room(op) > int(op.num_active_tasks())

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        """Return how many bytes may be taken from its running tasks: about as much as has room.

        Without a bound all that a task has is taken at once, since it goes on meanwhile. What was
        taken a moment ago is in no queue yet, so nothing is added to it. The driver itself empties
        the last queue.
        """
        tasks = op.get_active_tasks()
        if not op.output_dependencies or not tasks:
            return None
        if any(task.has_pending_emits() for task in tasks if isinstance(task, DataOpTask)):
            return 0
        usual = BLOCK_BYTES + (op.metrics.average_bytes_per_output or 0)
        return math.ceil(self._room(op) * usual)

    def _room(self, op: Any) -> int:
        """Return how many more blocks may wait for what follows the operator."""
        queued = int(self._topology[op].total_enqueued_output_blocks())
        for following in op.output_dependencies:
            queued = max(queued, int(self._topology[following].total_enqueued_input_blocks()))
        return max(0, int(self._data_context.get_config(_MAX_QUEUED)) - queued)


class NoStatistics(ExecutionCallback):
    """Drops what an operator notes of each block that it gave out."""

    def on_execution_step(self, executor: Any) -> None:
        """Drop it at each step of the execution."""
        for op in executor._topology:  # noqa: SLF001 - there is no public way
            getattr(op, "_output_blocks_stats", []).clear()


class NoLostActors(ExecutionCallback):
    """Ends an execution when an actor is lost for good that has nothing to do.

    If it had, its task would fail and do so. Otherwise Ray Data counts it as one of its pool and
    starts no other.
    """

    def on_execution_step(self, executor: Any) -> None:
        """Look at the actors.

        Raises:
            RayActorError: One was lost.
        """
        pools = (pool for op in executor._topology for pool in op.get_autoscaling_actor_pools())  # noqa: SLF001
        for pool in pools:
            for actor, state in pool._running_actors.items():  # noqa: SLF001
                lost = actor._get_local_state() == ActorTableData.DEAD  # noqa: SLF001
                if lost and not state.num_tasks_in_flight:
                    raise RayActorError(error_msg="An actor was lost that had nothing to do.")


def steady_context(max_queued: int) -> ray.data.DataContext:
    """Return settings for data sets whose rows are blocks of their own.

    Args:
        max_queued: Blocks that wait in front of an operator. A few more do where nothing behind it
            runs, one each `RELEASE_INTERVAL_S` at most.
    """
    context = ray.data.DataContext.get_current().copy()
    # Each row is more than a byte and becomes a block of its own: a unit of work, and of loss.
    context.target_max_block_size = 1
    context.set_config(_MAX_QUEUED, max_queued)
    key = ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY
    policies = context.get_config(key, ENABLED_BACKPRESSURE_POLICIES)
    context.set_config(key, [*policies, ShortQueues])
    context.custom_execution_callback_classes.extend([NoStatistics, NoLostActors])
    context.autoscaling_config.actor_pool_util_upscaling_threshold = GROW_AT
    context.autoscaling_config.actor_pool_util_downscaling_threshold = SHRINK_AT
    context.output_backpressure_guard_release_interval_s = RELEASE_INTERVAL_S
    # Nodes that are taken back may be missing for longer than half an hour; what is done is kept.
    context.execution_no_progress_timeout_s = -1
    return context


def stream_of(column: str, values: Iterable[str]) -> ray.data.Dataset:
    """Return a data set of one column, its rows made into blocks while they are wanted.

    Args:
        column: Its name.
        values: One or more.
    """
    left = iter(values)
    rows = []
    while some := list(islice(left, SHARDS_PER_BLOCK)):
        rows.append({column: some})
    # One task at a time, which waits most of the time; no row can be to blame for its loss.
    return ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
        _apart, compute=ray.data.TaskPoolStrategy(size=1), num_cpus=0, max_retries=-1
    )


def _apart(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Take a row of many values apart, while they are wanted."""
    for column, values in row.items():
        for value in values:
            yield {column: value}
