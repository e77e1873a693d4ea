"""What is checked of publishing: a small stage, an independent reader, and the search over runs.

A state of a storage is checked when it is first seen, in whichever run: what is visible, what a
loss of power may leave of it, and that a new run from there ends well.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raysae.artifacts import (
    CHECKSUM,
    Artifact,
    ArtifactSpec,
    Publication,
    RowGroup,
    ScoreTable,
    ShardPlan,
)
from raysae.stages._outcome import finish_once
from raysae.storage import Directory
from tests.artifacts.scores import NONE_REJECTED, rows
from tests.storage.simulator import Process, State, Work, World, freeze

SPEC = ArtifactSpec("things", 1, {"k": 3})
PLAN = ShardPlan([3, 1], 2)
BELOW = f"{SPEC.kind}/{SPEC.id}/"
METADATA = f"{BELOW}metadata.json"
FIXED = "result.bin"
GROUPS = [RowGroup("corpus", "l0", "lineage", start, start + 2) for start in (0, 2)]
SCORES = "scores/"
OTHERS: State = {
    "raysae.json": b"{}",
    "things/other/metadata.json": b"{}",
    "others/a": b"another's",
}
"""What is not the artifact's, and must stay as it is."""

MakeWorld = Callable[[Path, State, dict[str, Work]], World]
Schedule = list[tuple[int, Exception | None]]
"""Which process goes on at every step, and how the step ends."""


class BrokenError(Exception):
    """An invariant does not hold."""


def rows_of(shard: str, bits: str) -> bytes:
    """Return a shard's data: the same rows, whatever the bits."""
    return f"rows of {shard}|{bits}".encode()


def stage(bits: str) -> Work:
    """Return what a stage does that computes some bits."""

    def work(root: Directory) -> bool:
        made = Artifact(root, SPEC)
        if made.is_finished():
            return False
        made.begin(len(PLAN))
        attempts = made.attempts("work")
        for shard in made.missing(PLAN).shards:
            with attempts.attempt(shard.name):
                publication = Publication(made.directory)
                with publication.writing(f"{shard.name}-{CHECKSUM}.txt") as local:
                    local.write_bytes(rows_of(shard.name, bits))
                content = {"rows": shard.rows, "rejected": 0, "rejections": []}
                made.mark_shard(shard.name, publication.records, content)
        made.finish({"rows": 4, "run": threading.current_thread().name}, shards=PLAN)
        return True

    return work


def fixed_stage(bits: str) -> Work:
    """Return what a stage does whose one file has a fixed name."""

    def make(files: Publication) -> dict[str, str]:
        files.put_bytes(FIXED, f"result|{bits}".encode())
        return {"run": threading.current_thread().name}

    def work(root: Directory) -> bool:
        made = Artifact(root, SPEC)
        if made.is_finished():
            return False
        made.begin()
        finish_once(made, make)
        return True

    return work


def score_stage(bits: str) -> Work:
    """Return what scoring does: two row groups, published as a series."""

    def work(root: Directory) -> bool:
        table = ScoreTable(root)
        if table.are_live(GROUPS, "s"):
            return False
        for group in table.missing(GROUPS).groups:
            table.write(group, rows(group, ord(bits) / 128), NONE_REJECTED)
        table.publish(GROUPS, "s")
        return True

    return work


# -- The independent reader


def _files_of(listed: Any, state: State, where: str, below: str = BELOW) -> list[str]:
    """Return the names that a list gives, all of which are there as it says."""
    for file in listed:
        data = state.get(below + file["name"])
        if data is None:
            raise BrokenError(f"{where} lists {file['name']}, which is not there")
        if len(data) != file["size"] or hashlib.sha256(data).hexdigest() != file["sha256"]:
            raise BrokenError(f"{where} lists {file['name']}, which holds something else")
    return [file["name"] for file in listed]


def check_always(state: State) -> None:
    """See that whatever is said to be complete is."""
    _check_others(state)
    if finished(state):
        _check_finished(state)


def check_fixed(state: State) -> None:
    """The same for `fixed_stage`."""
    _check_others(state)
    if finished(state):
        files = _files_of(json.loads(state[METADATA])["files"], state, "metadata.json")
        if files != [FIXED]:
            raise BrokenError(f"metadata.json lists {files}")


def check_scores(state: State) -> None:
    """The same for `score_stage`: what a manifest lists is there, every row once."""
    _check_others(state, SCORES)
    for name in _manifests(state):
        listed = pq.read_table(io.BytesIO(state[name])).to_pylist()
        if [(row["start"], row["stop"]) for row in listed] != [(g.start, g.stop) for g in GROUPS]:
            raise BrokenError(f"{name} does not list every row once")
        files = [{**row, "name": row["path"]} for row in listed]
        for path in _files_of(files, state, name, SCORES):
            key = path.rpartition("/")[2].partition("-")[0]
            mark = json.loads(state[f"{SCORES}marks/{key}.done.json"])
            if [file["name"] for file in mark["files"]] != [path]:
                raise BrokenError(f"mark and {name} tell different files")


def _manifests(state: State) -> list[str]:
    return sorted(name for name in state if name.startswith(f"{SCORES}manifests/"))


def _check_others(state: State, below: str = BELOW) -> None:
    for name, data in OTHERS.items():
        if state.get(name) != data:
            raise BrokenError(f"{name} was touched")
    for name in state:
        if not name.startswith(below) and name not in OTHERS:
            raise BrokenError(f"{name} was written")
    for name, data in state.items():
        if name.endswith(".done.json"):
            _files_of(json.loads(data)["files"], state, name, below)


def finished(state: State) -> bytes | None:
    """Return what says that all is done, if it is there."""
    manifests = _manifests(state)
    return state[manifests[-1]] if manifests else state.get(METADATA)


def _check_finished(state: State) -> None:
    """See that a finished artifact holds every row once."""
    metadata = json.loads(state[METADATA])
    if metadata["spec"] != json.loads(state[f"{BELOW}spec.json"])["spec"]:
        raise BrokenError("spec.json and metadata.json tell different things")
    (table,) = _files_of(metadata["files"], state, "metadata.json")
    rows = pq.read_table(io.BytesIO(state[BELOW + table])).to_pylist()
    _files_of(rows, state, table)
    if [(row["shard"], row["rows"]) for row in rows] != [(one.name, one.rows) for one in PLAN]:
        raise BrokenError("the shard list does not list every shard once")
    for row in rows:
        data = state[BELOW + row["name"]].partition(b"|")[0]
        if data != rows_of(row["shard"], "").partition(b"|")[0]:
            raise BrokenError(f"{row['name']} holds other rows")
        mark = json.loads(state[f"{BELOW}{row['shard']}.done.json"])
        if [file["name"] for file in mark["files"]] != [row["name"]]:
            raise BrokenError(f"mark and shard list tell different files of {row['shard']}")


def check_end(state: State, undisturbed: State | None) -> None:
    """See that the artifact is finished; and equal to an undisturbed run's, if that is known."""
    if not finished(state):
        raise BrokenError("a run ended, but the artifact is not finished")
    if undisturbed is not None:
        for name in sorted({*state, *undisturbed}):
            passing = "/attempts/" in name or "/work/" in name
            if not passing and _content(state, name) != _content(undisturbed, name):
                raise BrokenError(f"{name} differs from an undisturbed run's")


def _content(state: State, name: str) -> Any:
    """Return what does not depend on which run it was that finished."""
    data = state.get(name)
    if data is None or name != METADATA:
        return data
    return {key: value for key, value in json.loads(data).items() if key != "run"}


# -- The search


@dataclass
class Search:
    """Runs processes on a storage in many orders and checks every state.

    Attributes:
        make_world: The kind of storage.
        place: An empty directory.
        bits: Of the processes, and of the runs after them.
        later_bits: Of the runs after them. If all are the same, every end has to equal the
            undisturbed run's.
        start: The storage at the beginning.
        stage: What a process does, by its bits.
        check: What must hold of every state.
        states: Distinct states of storage and processes.
        storages: Distinct states of the storage, a loss of power included; from each of them a new
            run was made.
    """

    make_world: MakeWorld
    place: Path
    bits: Sequence[str]
    later_bits: str
    runs: int = 0
    steps: int = 0
    states: dict[Any, int] = field(default_factory=dict)
    storages: set[Any] = field(default_factory=set)
    start: State = field(default_factory=lambda: dict(OTHERS))
    stage: Callable[[str], Work] = stage
    check: Callable[[State], None] = check_always
    undisturbed: State | None = None
    _numbers: Any = field(default_factory=count)
    _checked: set[Any] = field(default_factory=set)

    def __post_init__(self) -> None:
        if len({*self.bits, self.later_bits}) == 1:
            self.undisturbed = self._run_alone(self.start)

    def world(self, state: State, bits: Sequence[str]) -> World:
        """Return a new storage with processes that wait for their first step."""
        self.runs += 1
        works = {f"run {number}": self.stage(one) for number, one in enumerate(bits)}
        return self.make_world(self.place / f"{next(self._numbers)}", state, works)

    def _run_alone(self, state: State) -> State:
        """Return what an undisturbed run leaves."""
        world = self.world(state, [self.later_bits])
        (process,) = world.processes
        try:
            while not process.ended:
                self._check(world.visible())
                self._advance(process)
            _raise_error_of(process)
            self._check(world.visible())
            return world.visible()
        finally:
            world.close()

    def _advance(self, process: Process, fault: Exception | None = None) -> None:
        process.advance(fault)
        self.steps += 1

    def _check(self, state: State) -> None:
        """Check what is there, if it is new."""
        key = freeze(state)
        if key not in self._checked:
            self.check(state)
            self._checked.add(key)

    def go_on(self, process: Process, fault: Exception | None = None) -> None:
        """Let a process carry out its step, and what follows that no other one can tell apart."""
        self._advance(process, fault)
        while process.step is not None and not process.step.shared:
            self._advance(process)

    def check_state(self, world: World) -> Any:
        """Check a state if it is new; return its key."""
        visible = world.visible()
        if not finished(self.start) and (content := finished(visible)):
            if world.finished_with not in {None, content}:
                raise BrokenError("what was finished was written again")
            world.finished_with = content
        after = world.after_power_cut()
        for process in world.processes:
            _raise_error_of(process)
        if any(process.ended for process in world.processes) and not finished(visible):
            raise BrokenError("a run ended, but the artifact is not finished")
        made = any(process.wrote for process in world.processes)
        if made and not all(map(finished, after)):
            raise BrokenError("a run made the artifact, but a loss of power can undo it")
        for state in (visible, *after):
            self.check_storage(state)
        about = tuple((p.step, p.steps, p.history) for p in world.processes)
        return freeze(visible), frozenset(map(freeze, after)), about

    def check_storage(self, state: State) -> None:
        """Check what is there, and that a new run from there ends well."""
        key = freeze(state)
        if key in self.storages:
            return
        self.storages.add(key)
        self._check(state)
        end = self._run_alone(state)
        check_end(end, self.undisturbed)

    def follow(self, schedule: Schedule, switches: int, faults: int) -> list[Schedule]:
        """Run as a schedule says and then on to the end, or to a state that was seen before.

        Returns:
            The schedules that leave this one after its end.
        """
        world = self.world(self.start, self.bits)
        branches: list[Schedule] = []
        done: Schedule = []
        try:
            for process in world.processes:
                if process.step is not None and not process.step.shared:
                    self.go_on(process)
            while True:
                if len(done) >= len(schedule):
                    key = (self.check_state(world), done[-1][0] if done else 0)
                    left = (switches - _switches(done)) * 10 + faults - _faults(done)
                    if self.states.get(key, -1) >= left:
                        break
                    self.states[key] = left
                choices = self._choices(world, done, switches, faults)
                if not choices:
                    self._check_end(world)
                    break
                if len(done) < len(schedule):
                    choice = schedule[len(done)]
                else:
                    choice = choices[0]
                    branches += [[*done, other] for other in choices[1:]]
                done.append(choice)
                self.go_on(world.processes[choice[0]], choice[1])
        except BrokenError as error:
            raise BrokenError(f"{error}; in {self.told(done)}") from error
        finally:
            world.close()
        return branches

    def _choices(self, world: World, done: Schedule, switches: int, faults: int) -> Schedule:
        """Return what may happen next; the first choice is to go on as before."""
        ready = [n for n, process in enumerate(world.processes) if not process.ended]
        last = done[-1][0] if done else 0
        if last in ready:
            may_switch = _switches(done) < switches
            ready = [last, *(n for n in ready if n != last and may_switch)]
        fails = world.faults if _faults(done) < faults else ()
        return [(n, fault) for n in ready for fault in (None, *fails)]

    def _check_end(self, world: World) -> None:
        check_end(world.visible(), self.undisturbed)

    def all_orders(self, switches: int, faults: int = 0) -> None:
        """Search all orders with some changes between processes and some lost answers at most."""
        open_schedules: list[Schedule] = [[]]
        while open_schedules:
            open_schedules += self.follow(open_schedules.pop(), switches, faults)

    def random_orders(self, seeds: Sequence[int], faults: int = 2) -> None:
        """Search random orders, with processes killed at random and answers lost."""
        for seed in seeds:
            self._random_order(random.Random(seed), faults)

    def _random_order(self, dice: random.Random, faults: int) -> None:
        world = self.world(self.start, self.bits)
        done: Schedule = []
        try:
            alive = dict(enumerate(world.processes))
            stays = dice.choice([0.5, 0.8, 0.95])
            number = 0
            while alive := {n: p for n, p in alive.items() if not p.ended}:
                if number not in alive or dice.random() > stays:
                    number = dice.choice(sorted(alive))
                if dice.random() < 0.005:
                    del alive[number]
                    continue
                fails = world.faults if _faults(done) < faults else ()
                fault = dice.choice(fails) if fails and dice.random() < 0.05 else None
                done.append((number, fault))
                self.go_on(alive[number], fault)
                self.states.setdefault(self.check_state(world), -1)
        except BrokenError as error:
            raise BrokenError(f"{error}; in {self.told(done)}") from error
        finally:
            world.close()

    def one_process(self, faults: int = 0) -> None:
        """Kill one process after each of its steps, and cut the power there."""
        world = self.world(self.start, self.bits[:1])
        (process,) = world.processes
        try:
            while not process.ended:
                self.states.setdefault(self.check_state(world), -1)
                self._advance(process)
            self.states.setdefault(self.check_state(world), -1)
        finally:
            world.close()

    def told(self, done: Schedule) -> str:
        """Say how a state was reached."""
        parts = []
        for n, fault in done:
            if parts and parts[-1][0] == n and fault is None:
                parts[-1][1] += 1
            else:
                parts.append([n, 1, " with a lost answer" if fault else ""])
        return ", ".join(f"process {n}: {steps} steps{lost}" for n, steps, *[lost] in parts)


def _raise_error_of(process: Process) -> None:
    if process.error is not None:
        words = f"process {process.name} failed: {process.error!r}"
        raise BrokenError(words) from process.error


def _switches(done: Schedule) -> int:
    return sum(one[0] != other[0] for one, other in pairwise(done))


def _faults(done: Schedule) -> int:
    return sum(fault is not None for _, fault in done)
