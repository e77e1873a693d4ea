"""A Ray of several nodes on this machine, any of which can be lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from deploy.run_local import API_SERVER, Head, _free_ports
from tests.cluster.harness import ACTOR, TRAIN_RANK, alive, descendants, processes, wait_for

NODE_CPUS = 3
"""Enough for both actors and the readers: the node that is left does all the work."""


@dataclass
class Nodes:
    """A head without CPUs and the nodes that do the work.

    Attributes:
        cluster: Ray's own object.
        head: Where jobs are submitted.
        workers: The nodes that do the work, without those lost.
        lost: All processes of the nodes lost so far.
    """

    cluster: Any
    head: Head
    workers: list[Any] = field(default_factory=list)
    lost: list[psutil.Process] = field(default_factory=list)

    def add(self) -> Any:
        """Start one more node that does work, and return it."""
        self.workers.append(self.cluster.add_node(num_cpus=NODE_CPUS))
        return self.workers[-1]

    def lose(self, worker: Any) -> list[psutil.Process]:
        """End a node with no chance to clean up; return its processes, which then end by and by."""
        its = of_node(worker)
        self.lost += its
        self.workers.remove(worker)
        self.cluster.remove_node(worker, allow_graceful=False)
        # Ray ends its own; what they started would live until it misses them.
        for process in alive(its):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return its

    def actors(self, worker: Any) -> list[psutil.Process]:
        """Return the pools' actors on a node."""
        raylet = _raylet(worker)
        return [process for process in processes(raylet, ACTOR) if process.ppid() == raylet]

    def training(self) -> list[Any]:
        """Return the nodes that do work and have a training rank: Ray may pack all on one."""
        return [worker for worker in self.workers if processes(_raylet(worker), TRAIN_RANK)]

    def running(self) -> list[psutil.Process]:
        """Return the processes of all nodes, the head's too."""
        return [process for node in self.cluster.list_all_nodes() for process in of_node(node)]


@contextmanager
def local_nodes(environment: Mapping[str, str], count: int = 2) -> Iterator[Nodes]:
    """Start a head and `count` nodes that do the work, and end all their processes on leaving.

    Args:
        environment: Variables for the head, the nodes and their jobs, as of a local head.
        count: Nodes besides the head.
    """
    from ray.cluster_utils import Cluster

    # A token of another Ray must not matter.
    theirs = {**environment, "RAY_AUTH_MODE": "disabled"}
    theirs.pop("RAY_AUTH_TOKEN", None)
    ports = _free_ports(4)
    theirs[API_SERVER] = f"http://127.0.0.1:{ports[1]}"
    with pytest.MonkeyPatch.context() as patch:
        # The processes take their environment from this one.
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in theirs.items():
            patch.setenv(name, value)
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
        here = SimpleNamespace(pid=_raylet(cluster.head_node))
        nodes = Nodes(cluster, Head(theirs[API_SERVER], theirs, here))
        started: list[psutil.Process] = []
        try:
            for _ in range(count):
                nodes.add()
            started += nodes.running()
            yield nodes
        finally:
            started += nodes.running() + nodes.lost
            cluster.shutdown()
        wait_for(lambda: not alive(started), "the end of the nodes' processes")


def _raylet(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def of_node(node: Any) -> list[psutil.Process]:
    """Return all processes of a node."""
    pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
    return [process for pid in pids for process in _with_descendants(pid)]


def _with_descendants(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *descendants(pid)]
    except psutil.NoSuchProcess:
        return []
