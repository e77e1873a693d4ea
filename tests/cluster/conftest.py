from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.run_local import Head
from tests.cluster.harness import wait_until_idle
from tests.cluster.nodes import Nodes, local_nodes
from tests.cluster.runner import Runner, Undisturbed, head_of_tests


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """One head for all tests."""
    with head_of_tests() as head:
        yield head


@pytest.fixture(scope="session")
def undisturbed(head, tiny_model, tmp_path_factory) -> Undisturbed:
    directory = tmp_path_factory.mktemp("undisturbed")
    runner = Runner.below(head, directory / "all", tiny_model)
    ended = {name: runner.run(name) for name in ("cache", "train", "filter", "finetune")}
    for job in ended.values():
        assert job.exit_code == 0, job.output[-6000:]
    return Undisturbed(runner.storage, ended)


@pytest.fixture
def runner(head, tiny_model, tmp_path) -> Iterator[Runner]:
    """A runner on an empty storage; afterwards no process of its jobs is left."""
    yield Runner.below(head, tmp_path / "run", tiny_model)
    wait_until_idle(head.process.pid)


@pytest.fixture
def nodes(head) -> Iterator[Nodes]:
    """A Ray of two nodes besides its head, for this test alone."""
    with local_nodes(head.environment) as nodes:
        yield nodes
