"""A node is lost, with its raylet, its actors and what its object store held."""

from __future__ import annotations

import pytest

from tests.cluster.content import Storage, cached_ids, cached_tokens, marks, source_ids
from tests.cluster.harness import Job, alive, wait_for, wait_until_idle
from tests.cluster.settings import ROWS, SHARDS, options

pytestmark = pytest.mark.cluster


def test_a_lost_node_costs_no_row_and_doubles_none(undisturbed, nodes, tiny_model, tmp_path):
    storage = Storage(tmp_path / "storage")
    cache = storage.sibling(undisturbed.storage, "activations")
    argv = ["jobs/cache.py", *options(storage.root, tiny_model)]
    job = Job(nodes.head, [*argv, "--run.min_actors=2", "--run.max_actors=2"], tmp_path / "job.log")
    job.wait_until(lambda: len(marks(cache)) >= 2, "two shards")
    busy = [worker for worker in nodes.workers if nodes.actors(worker)]
    assert len(busy) == 2, "one node got both actors"
    lost = nodes.lose(busy[0])
    assert len(marks(cache)) < SHARDS, "the loss came too late"
    ended = job.wait()
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert ended.result["rows"] == ROWS
    after = storage.artifact("activations")
    assert cached_ids(after) == source_ids("builtin", ROWS)
    assert cached_tokens(after) == cached_tokens(undisturbed.storage.artifact("activations"))
    wait_until_idle(nodes.head.process.pid)
    wait_for(lambda: not alive(lost), "the end of the lost node's processes")
