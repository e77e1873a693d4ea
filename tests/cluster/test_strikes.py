"""Processes stand in for a job's: they only carry the names."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace

import psutil
import pytest

from tests.cluster import strikes
from tests.cluster.harness import ACTOR, READER, TRAIN_RANK, alive, descendants, kill
from tests.cluster.moments import Moment, Victim
from tests.cluster.strikes import strike

PARENT = """
import subprocess, sys
command = ["-c", "import time; time.sleep(600)"]
started = [subprocess.Popen([name, *command], executable=sys.executable) for name in sys.argv[1:]]
print(*[process.pid for process in started], flush=True)
for process in started:
    process.wait()
"""


@dataclass
class Client:
    """Ends the job after some looks at it."""

    looks: int = 1000

    def poll(self):
        self.looks -= 1
        return 0 if self.looks < 0 else None


@dataclass
class StandIn:
    head: SimpleNamespace
    client: Client
    driver: psutil.Process

    def drivers(self):
        return alive([self.driver])


@pytest.fixture
def head():
    """A stand-in for a head: the parent of the others, so that no other process can be meant."""
    names = [ACTOR, ACTOR, READER, TRAIN_RANK, "python jobs/cache.py"]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *names], stdout=subprocess.PIPE, text=True
    ) as parent:
        parent.pids = [int(pid) for pid in parent.stdout.readline().split()]
        yield parent
        for process in descendants(parent.pid):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def started(head):
    """A stand-in for each process of a job."""
    return [psutil.Process(pid) for pid in head.pids]


@pytest.fixture
def job(head, started):
    return StandIn(SimpleNamespace(process=head), Client(), started[-1])


def moment(victim, after=0, pick=0.0):
    return Moment("cache", victim, after, delay_s=0.0, pick=pick)


def ended(started):
    return [index for index, process in enumerate(started) if not alive([process])]


@pytest.mark.parametrize(
    ("victim", "pick", "index"),
    [
        (Victim.ACTOR, 0.0, 0),
        (Victim.ACTOR, 0.9, 1),
        (Victim.READER, 0.5, 2),
        (Victim.RANK, 0.5, 3),
        (Victim.DRIVER, 0.5, 4),
    ],
)
def test_exactly_the_victim_is_killed(job, started, victim, pick, index):
    killed = strike(moment(victim, pick=pick), job, lambda: 3)
    assert killed == f"{victim} {started[index].pid}, with 3 marks of cache"
    assert ended(started) == [index]


def test_it_waits_for_the_marks(job, started):
    counts = iter([-1, 0, 1, 2, 2])
    seen = []

    def progress():
        seen.append(next(counts))
        assert not ended(started) or seen[-1] == 2
        return seen[-1]

    assert strike(moment(Victim.DRIVER, after=2), job, progress)
    assert seen == [-1, 0, 1, 2, 2]


def test_a_job_that_is_over_first_is_spared(job, started):
    job.client = Client(looks=3)
    assert strike(moment(Victim.ACTOR, after=5), job, lambda: 4) is None
    assert strike(moment(Victim.NODE), job, lambda: 4, nodes=object()) is None
    assert not ended(started)


def test_where_there_is_no_victim_the_job_goes_on(job, started):
    kill(started[2])
    job.client = Client(looks=5)
    assert strike(moment(Victim.READER), job, lambda: 0) is None
    assert ended(started) == [2]


def test_of_training_a_node_is_lost_that_has_a_rank(job):
    nodes = SimpleNamespace(workers=["a", "b", "c"], lost=[], training=lambda: ["b"])
    nodes.lose = nodes.lost.append
    for pick in (0.0, 0.9):
        assert strike(moment(Victim.NODE, pick=pick), job, lambda: 1, nodes) is not None
    assert nodes.lost == ["b", "b"]


def test_one_of_the_nodes_is_lost(job):
    nodes = SimpleNamespace(workers=["a", "b"], lost=[], training=list)
    nodes.lose = nodes.lost.append
    assert strike(moment(Victim.NODE, pick=0.5), job, lambda: 1, nodes) is not None
    assert nodes.lost == ["b"]
    with pytest.raises(AssertionError, match="no nodes"):
        strike(moment(Victim.NODE), job, lambda: 1)


def test_a_victim_that_ends_by_itself_is_no_victim(job, monkeypatch):
    def gone(process):
        raise psutil.NoSuchProcess(process.pid)

    monkeypatch.setattr(strikes, "kill", gone)
    job.client = Client(looks=5)
    assert strike(moment(Victim.ACTOR), job, lambda: 0) is None
