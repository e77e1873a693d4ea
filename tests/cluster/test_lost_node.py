"""A node is lost, with its raylet, its actors and what its object store held."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import psutil
import pytest

from deploy.run_local import Head, _free_ports
from tests.cluster.content import Storage, cached_ids, cached_tokens, marks, source_ids
from tests.cluster.harness import (
    ACTOR,
    Job,
    alive,
    descendants,
    processes,
    wait_for,
    wait_until_idle,
)
from tests.cluster.settings import ROWS, SHARDS, options

pytestmark = pytest.mark.cluster

NODE_CPUS = 3
"""Enough for both actors and the readers: the node that is left does all the work."""


@dataclass
class Nodes:
    """A head without CPUs and two nodes that do the work."""

    cluster: object
    head: Head
    workers: list

    def actors(self, worker) -> list[psutil.Process]:
        raylet = worker.all_processes["raylet"][0].process.pid
        return [p for p in processes(raylet, ACTOR) if p.ppid() == raylet]


@pytest.fixture
def nodes(head, monkeypatch):
    from ray.cluster_utils import Cluster

    # The processes take their environment from this one; a token of another Ray must not matter.
    environment = {**head.environment, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_AUTH_TOKEN")
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("RAY_AUTH_MODE", "PATH", "HF_HUB_OFFLINE", "PYTHONUNBUFFERED"):
        monkeypatch.setenv(name, environment[name])
    ports = _free_ports(4)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "gcs_server_port": ports[0],
            "include_dashboard": True,
            "dashboard_port": ports[1],
            "dashboard_agent_listen_port": ports[2],
            "ray_client_server_port": ports[3],
        },
    )
    workers = [cluster.add_node(num_cpus=NODE_CPUS) for _ in range(2)]
    here = SimpleNamespace(pid=cluster.head_node.all_processes["raylet"][0].process.pid)
    there = Head(f"http://127.0.0.1:{ports[1]}", environment, here)
    started = [p for node in cluster.list_all_nodes() for p in of_node(node)]
    yield Nodes(cluster, there, workers)
    started += [p for node in cluster.list_all_nodes() for p in of_node(node)]
    cluster.shutdown()
    wait_for(lambda: not alive(started), "the end of the nodes' processes")


def of_node(node) -> list[psutil.Process]:
    pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
    return [process for pid in pids for process in [psutil.Process(pid), *descendants(pid)]]


def test_a_lost_node_costs_no_row_and_doubles_none(undisturbed, nodes, tiny_model, tmp_path):
    storage = Storage(tmp_path / "storage")
    cache = storage.sibling(undisturbed.storage, "activations")
    argv = ["jobs/cache.py", *options(storage.root, tiny_model)]
    job = Job(nodes.head, [*argv, "--run.min_actors=2", "--run.max_actors=2"], tmp_path / "job.log")
    job.wait_until(lambda: len(marks(cache)) >= 2, "two shards")
    busy = [worker for worker in nodes.workers if nodes.actors(worker)]
    assert len(busy) == 2, "one node got both actors"
    lost = of_node(busy[0])
    nodes.cluster.remove_node(busy[0], allow_graceful=False)
    assert len(marks(cache)) < SHARDS, "the loss came too late"
    ended = job.wait()
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert ended.result["rows"] == ROWS
    after = storage.artifact("activations")
    assert cached_ids(after) == source_ids("builtin", ROWS)
    assert cached_tokens(after) == cached_tokens(undisturbed.storage.artifact("activations"))
    wait_until_idle(nodes.head.process.pid)
    wait_for(lambda: not alive(lost), "the end of the lost node's processes")
