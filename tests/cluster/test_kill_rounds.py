"""Rounds of the chain in each of which chance kills something; a page tells of the last twenty.

`RAYSAE_KILL_ROUNDS` (3) and `RAYSAE_KILL_SEED` decide which, `RAYSAE_KILL_PAGE` where the page
goes, if anywhere. Twenty rounds kill each victim in each stage once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.harness import wait_until_idle
from tests.cluster.kill_rounds import Played, play
from tests.cluster.moments import Moment, Moments, Victim
from tests.cluster.nodes import Nodes, local_nodes
from tests.cluster.runner import Runner

pytestmark = pytest.mark.cluster

ROUNDS = int(os.environ.get("RAYSAE_KILL_ROUNDS", "3"))
SEED = int(os.environ.get("RAYSAE_KILL_SEED", "3091"))
"""Its first three rounds kill a reader, a driver and a node, each in another stage."""

MOMENTS = [Moments(SEED).at(number) for number in range(ROUNDS)]
NODES = 2

PAGE = """# Killed, and run to the same content

Written by `make test-kills`: {rounds} rounds of `jobs/filter.py` and `jobs/finetune.py`, in each
of which one process or node is ended by SIGKILL at a moment that a seed chooses (seed {seed};
{date}; {cores} cores). A lost driver's job is submitted again. In the end all artifacts are
compared with those of a run that nothing happened to: the same ids, the same bytes of hidden
states, SAE, weights and kept rows, the same live scores, every row used once or rejected once, no
file damaged, and none in doubt. Each round begins with copies of what the stages before its own
have made.

| round | stage | killed | when | done again | submitted | seconds |
|---|---|---|---|---|---|---|
"""


class LocalNodes:
    """Two nodes that do work, started when a round first needs them, and lost ones replaced."""

    def __init__(self, stack: ExitStack, environment: dict[str, str]) -> None:
        self._stack = stack
        self._environment = environment
        self._nodes: Nodes | None = None

    def all_there(self) -> Nodes:
        """Return them, both alive."""
        if self._nodes is None:
            self._nodes = self._stack.enter_context(local_nodes(self._environment, NODES))
        while len(self._nodes.workers) < NODES:
            self._nodes.add()
        return self._nodes


@pytest.fixture(scope="module")
def nodes_on_demand(head) -> Iterator[LocalNodes]:
    with ExitStack() as stack:
        yield LocalNodes(stack, head.environment)


@pytest.fixture(scope="module")
def tell() -> Callable[[str], None]:
    """Prints a row of the table, and writes the page so far where one is wanted."""
    rows: list[str] = []

    def tell_row(row: str) -> None:
        print(row)
        rows.append(row)
        if where := os.environ.get("RAYSAE_KILL_PAGE"):
            date = time.strftime("%Y-%m-%d", time.gmtime())
            head = PAGE.format(rounds=len(rows), seed=SEED, date=date, cores=os.cpu_count())
            Path(where).write_text(head + "".join(rows), encoding="utf-8")

    return tell_row


def row_of(number: int, played: Played) -> str:
    """Return a round's row of the table."""
    moment = played.moment
    cells = (number, moment.stage, moment.victim, played.when, played.redone, played.runs)
    return f"| {' | '.join(map(str, cells))} | {played.seconds:.0f} |\n"


@pytest.fixture
def play_round(
    undisturbed, head, tiny_model, tmp_path, nodes_on_demand
) -> Callable[[Moment], Played]:
    """Plays one round, on nodes of its own if one of them is to be lost."""

    def play_here(moment: Moment) -> Played:
        all_nodes = nodes_on_demand.all_there if moment.victim is Victim.NODE else None
        here = all_nodes().head if all_nodes else head

        def runner_in(name: str) -> Runner:
            return Runner.below(here, tmp_path / name, tiny_model)

        played = play(moment, runner_in, undisturbed, all_nodes)
        wait_until_idle(here.process.pid)
        return played

    return play_here


@pytest.mark.parametrize(
    ("number", "moment"),
    enumerate(MOMENTS),
    ids=[f"{number}-{one.stage}-{one.victim}" for number, one in enumerate(MOMENTS)],
)
def test_the_content_is_the_same_whatever_is_killed(play_round, tell, number, moment):
    try:
        row = row_of(number, play_round(moment))
    except BaseException:
        tell(f"| {number} | {moment.stage} | {moment.victim} | **failed** | | | |\n")
        raise
    tell(row)
