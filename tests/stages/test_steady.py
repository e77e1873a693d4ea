from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

from raysae.stages import _steady
from raysae.stages._steady import NoStatistics, steady_context, stream_of

QUEUED = 6


class Before(ExecutionCallback):
    """Counts what is noted of blocks, blocks that wait and tasks, at each step of an execution."""

    noted: ClassVar[list[int]] = []
    waiting: ClassVar[list[int]] = []
    running: ClassVar[list[int]] = []

    def on_execution_step(self, executor: Any) -> None:
        topology = executor._topology
        self.noted.append(sum(len(getattr(op, "_output_blocks_stats", [])) for op in topology))
        # Of the first operator, which holds the blocks that all shards come from, nothing.
        self.waiting.append(
            max(s.total_enqueued_input_blocks() for s in list(topology.values())[2:])
        )
        self.running.append(max(op.num_active_tasks() for op in topology))


class After(Before):
    noted: ClassVar[list[int]] = []
    waiting: ClassVar[list[int]] = []
    running: ClassVar[list[int]] = []


def slow(row: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.02)
    return row


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_rows_are_blocks_and_few_wait_and_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_steady, "SHARDS_PER_BLOCK", 50)
    context = steady_context(QUEUED)
    ours = context.custom_execution_callback_classes
    assert NoStatistics in ours
    context.custom_execution_callback_classes = [Before, *ours, After]
    with DataContext.current(context):
        source = stream_of("n", map(str, range(120)))
    # So small a share of a core that many could run.
    read = source.map(slow, num_cpus=0.05).map_batches(
        lambda batch: {"n": batch["n"], "size": [len(batch["n"])]},
        batch_size=None,
        num_cpus=0.25,
    )
    rows = list(read.map(slow, num_cpus=0.5, concurrency=1).iter_rows())
    assert sorted(int(row["n"]) for row in rows) == list(range(120))
    assert {row["size"] for row in rows} == {1}
    # While nothing runs yet behind a queue one more is let through each second.
    assert QUEUED <= max(Before.waiting) <= 3 * QUEUED
    assert 1 < max(Before.running) <= QUEUED
    assert max(Before.noted) > 0
    assert max(After.noted) == 0
    assert DataContext.get_current().target_max_block_size != 1
