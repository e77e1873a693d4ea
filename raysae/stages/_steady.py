"""Ray Data with a driver whose memory does not depend on the number of blocks.

One block is one shard, and of 10⁵ shards Ray Data keeps three things on the driver: a reference to
each input block, the whole time; what readers have read and no actor took yet, bounded in bytes
only, so that small shards queue up by the thousand, each with its content if that is below 100 KiB;
and statistics of each block, until the end. Together that was 12 KiB a shard.

So shards come from a few blocks that a task takes apart while they are wanted, queues are bounded
in blocks, and statistics are dropped, which nobody reads. Queues and statistics are reached through
names that are Ray's own and no promise; pyproject.toml stops below the first version that was not
looked at, and tests look at both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import Any

import pyarrow as pa
import ray.data
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.interfaces.physical_operator import DataOpTask

SHARDS_PER_BLOCK = 1024
"""Of the blocks that shards come from."""

RELEASE_INTERVAL_S = 1.0

_MAX_QUEUED = "raysae.max_queued_blocks"


class ShortQueues(BackpressurePolicy):
    """Stops an operator while as many blocks as are allowed wait in front of the next one."""

    def can_add_input(self, op: Any) -> bool:
        """Whether the operator may begin another task."""
        return self._room(op) > 0

    def max_task_output_bytes_to_read(self, op: Any) -> int:
        """Return how many bytes may be taken from its running tasks: about as much as has room.

        Without a bound all that a task has is taken at once, since it goes on meanwhile. What was
        taken a moment ago is in no queue yet, so nothing is added to it.
        """
        tasks = op.get_active_tasks()
        if any(task.has_pending_emits() for task in tasks if isinstance(task, DataOpTask)):
            return 0
        usual = op.metrics.average_bytes_per_output or 1
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


def steady_context(max_queued: int) -> ray.data.DataContext:
    """Return settings for data sets whose rows are blocks of their own.

    Args:
        max_queued: Blocks that wait in front of an operator, at most, but for what its running
            tasks add.
    """
    context = ray.data.DataContext.get_current().copy()
    # Each row is more than a byte and becomes a block of its own: a unit of work, and of loss.
    context.target_max_block_size = 1
    context.set_config(_MAX_QUEUED, max_queued)
    policies = [*ENABLED_BACKPRESSURE_POLICIES, ShortQueues]
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)
    context.custom_execution_callback_classes.append(NoStatistics)
    # While nothing runs behind a full queue Ray Data lets blocks through, lest all stand still;
    # without an interval at every step, so for as long as actors load their model.
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
    tables = []
    while some := list(islice(left, SHARDS_PER_BLOCK)):
        tables.append(pa.table({column: some}))
    # One task at a time, which waits most of the time; no row can be to blame for its loss.
    return ray.data.from_arrow(tables).map(_unchanged, num_cpus=0, concurrency=1, max_retries=-1)


def _unchanged(row: dict[str, Any]) -> dict[str, Any]:
    return row
