from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.run_local import Head, local_head
from tests.cluster.content import Storage
from tests.cluster.harness import (
    Ended,
    Job,
    alive,
    descendants,
    wait_for,
    wait_until_idle,
)
from tests.cluster.nodes import Nodes, local_nodes
from tests.cluster.settings import CPUS, options


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """One head for all tests; when it ends, so has every process that it started."""
    with local_head(CPUS) as head:
        yield head
        started = descendants(head.process.pid)
    wait_for(lambda: not alive(started), "the end of what the head started")


@dataclass(frozen=True)
class Runner:
    """Submits jobs of the shared settings on one storage."""

    head: Head
    storage: Storage
    model: Path
    logs: Path

    def start(self, name: str, *more: str) -> Job:
        log = self.logs / f"{name}-{len(list(self.logs.iterdir()))}.log"
        argv = [f"jobs/{name}.py", *options(self.storage.root, self.model, name), *more]
        return Job(self.head, argv, log)

    def run(self, name: str, *more: str) -> Ended:
        return self.start(name, *more).wait()


@dataclass(frozen=True)
class Undisturbed:
    """What jobs that nothing happened to have made, and how they ended."""

    storage: Storage
    ended: dict[str, Ended]


@pytest.fixture(scope="session")
def undisturbed(head, tiny_model, tmp_path_factory) -> Undisturbed:
    directory = tmp_path_factory.mktemp("undisturbed")
    (directory / "logs").mkdir()
    storage = Storage(directory / "storage")
    runner = Runner(head, storage, tiny_model, directory / "logs")
    ended = {name: runner.run(name) for name in ("cache", "train", "filter", "finetune")}
    for job in ended.values():
        assert job.exit_code == 0, job.output[-6000:]
    return Undisturbed(storage, ended)


@pytest.fixture
def runner(head, tiny_model, tmp_path) -> Iterator[Runner]:
    """A runner on an empty storage; afterwards no process of its jobs is left."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "storage").mkdir()
    yield Runner(head, Storage(tmp_path / "storage"), tiny_model, tmp_path / "logs")
    wait_until_idle(head.process.pid)


@pytest.fixture
def nodes(head) -> Iterator[Nodes]:
    """A Ray of two nodes besides its head, for this test alone."""
    with local_nodes(head.environment) as nodes:
        yield nodes
