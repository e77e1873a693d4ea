"""Whether what a stage asks of Ray can ever be scheduled: Ray itself would wait without a word."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray
from ray.experimental import internal_kv

from raysae.errors import SettingsError

AUTOSCALING_STATUS = "__autoscaling_status"
"""Where the head's monitor says what it knows of nodes, whether or not it can add any."""


STATUS_WAIT_S = 10.0
"""How long a status is waited for, where what is asked for does not fit the nodes there are."""


@dataclass(frozen=True)
class Resources:
    """CPU cores and GPUs of a process, or of a node.

    Attributes:
        cpus: Cores.
        gpus: GPUs.
    """

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


def check_fits(what: str, needed: Sequence[Resources], settings: Sequence[str]) -> None:
    """Refuse what this cluster can never run; a cluster that may grow can run anything.

    Args:
        what: What is to run, for the message.
        needed: One entry for each process that has to run at the same time.
        settings: The settings that decide it, the most likely one first.

    Raises:
        SettingsError: No autoscaler is at work, and the nodes are too few or too small.
    """
    if fits_now(needed) or may_grow():
        return
    nodes = _nodes()
    total = Resources(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    raise SettingsError(
        f"{settings[0]}: {what} cannot run at the same time on this cluster of {len(nodes)} "
        f"node(s) with {total} in all; lower {' or '.join(settings)}, or add nodes."
    )


def fits_now(needed: Sequence[Resources]) -> bool:
    """Whether processes can run at the same time on the nodes that there are."""
    return fit(needed, _nodes())


def fit(needed: Sequence[Resources], nodes: Sequence[Resources]) -> bool:
    """Whether processes can be laid on nodes, the largest first and each on the first that fits."""
    free = [[node.cpus, node.gpus] for node in nodes]
    for process in sorted(needed, key=lambda one: (one.gpus, one.cpus), reverse=True):
        for node in free:
            if node[0] >= process.cpus and node[1] >= process.gpus:
                node[0] -= process.cpus
                node[1] -= process.gpus
                break
        else:
            return False
    return True


def may_grow() -> bool:
    """Whether an autoscaler may add nodes; true where that cannot be known.

    A monitor without an autoscaler's configuration names each node's type after the node.
    """
    deadline = time.monotonic() + STATUS_WAIT_S
    while not (types := _node_types()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not types or any(name != f"node_{node}" for node, name in types.items())


def _node_types() -> dict[str, str]:
    """Return what the monitor takes for the types of the nodes; nothing at a cluster's start."""
    status = internal_kv._internal_kv_get(AUTOSCALING_STATUS)  # noqa: SLF001 - has no public twin
    report = json.loads(status or b"{}").get("autoscaler_report") or {}
    return dict(report.get("node_type_mapping") or {})


def _nodes() -> list[Resources]:
    return [_of_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _of_node(resources: dict[str, float]) -> Resources:
    return Resources(resources.get("CPU", 0.0), resources.get("GPU", 0.0))
