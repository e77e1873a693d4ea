"""Publishing under every order of two runs, kills, losses of power and lost answers.

RAYSAE_DEEP_SEARCH=1 searches further (over an hour; each test of its own can be chosen with -k).
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from raysae.artifacts import artifact, attempts, manifests
from raysae.artifacts.marks import mark_name
from raysae.stages import _outcome
from raysae.storage import retry
from tests.artifacts.publish_model import (
    BELOW,
    METADATA,
    OTHERS,
    PLAN,
    BrokenError,
    MakeWorld,
    Search,
    check_always,
    check_end,
    check_fixed,
    check_scores,
    finished,
    fixed_stage,
    score_stage,
)
from tests.storage.fake_store import Client
from tests.storage.simulator import LocalWorld, ObjectWorld, SimulatedPosix, State

DEEP = bool(os.environ.get("RAYSAE_DEEP_SEARCH"))
KINDS: dict[str, MakeWorld] = {"directory": LocalWorld, "object store": ObjectWorld}
BITS = {"same bits": (("a", "a"), "a"), "other bits": (("a", "b"), "c")}


class Tokens(threading.local):
    """Attempts' tokens: as unique as random ones, but the same in every search."""

    number = 0

    def uuid4(self) -> SimpleNamespace:
        self.number += 1
        return SimpleNamespace(hex=f"{threading.current_thread().name}-{self.number}")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in memory; nothing in a run depends on time or chance, and no pause is long."""
    monkeypatch.setattr(artifact, "package_versions", dict)
    monkeypatch.setattr(artifact, "time", SimpleNamespace(strftime=lambda *_: "", gmtime=tuple))
    monkeypatch.setattr(attempts, "uuid", Tokens())
    monkeypatch.setattr(_outcome, "uuid", Tokens())
    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    monkeypatch.setattr(manifests.time, "sleep", lambda _: None)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> MakeWorld:
    """A kind of storage."""
    return KINDS[request.param]


@pytest.fixture(params=BITS)
def search(request: pytest.FixtureRequest, kind: MakeWorld, place: Path) -> Iterator[Search]:
    """A search over runs that compute the same bits, or each its own."""
    made = Search(kind, place, *BITS[request.param])
    yield made
    print(
        f"\n{made.runs:,} runs, {made.steps:,} steps, {len(made.states):,} states, "
        f"{len(made.storages):,} states of the storage"
    )


def test_one_run_that_is_killed_or_loses_power_at_any_step(search: Search) -> None:
    search.one_process()
    assert len(search.storages) > 15


def test_one_run_whose_answers_are_lost(place: Path) -> None:
    search = Search(ObjectWorld, place, ("a",), "a")
    search.all_orders(switches=0, faults=3 if DEEP else 2)
    assert len(search.states) > 100


def test_two_runs_in_all_orders_with_few_switches(search: Search) -> None:
    search.all_orders(switches=3 if DEEP else 1)
    assert len(search.states) > 1000


def test_two_runs_in_random_orders(search: Search) -> None:
    search.random_orders(range(5000 if DEEP else 40))
    assert len(search.states) > 1000


@pytest.fixture(params=BITS)
def fixed_search(request: pytest.FixtureRequest, kind: MakeWorld, place: Path) -> Search:
    """A search over runs whose result has a fixed name."""
    return Search(kind, place, *BITS[request.param], stage=fixed_stage, check=check_fixed)


def test_a_file_with_a_fixed_name_in_all_orders_with_few_switches(fixed_search: Search) -> None:
    fixed_search.one_process()
    fixed_search.all_orders(switches=3 if DEEP else 2)
    assert len(fixed_search.states) > 1000


def test_a_file_with_a_fixed_name_in_random_orders(fixed_search: Search) -> None:
    fixed_search.random_orders(range(5000 if DEEP else 100))
    assert len(fixed_search.states) > 1000


@pytest.fixture(params=BITS)
def score_search(request: pytest.FixtureRequest, kind: MakeWorld, place: Path) -> Search:
    """A search over runs that score and publish."""
    return Search(kind, place, *BITS[request.param], stage=score_stage, check=check_scores)


def test_scores_in_all_orders_with_few_switches(score_search: Search) -> None:
    score_search.one_process()
    score_search.all_orders(switches=3 if DEEP else 1)
    assert len(score_search.states) > 300


def test_scores_in_random_orders(score_search: Search) -> None:
    score_search.random_orders(range(5000 if DEEP else 40))
    assert len(score_search.states) > 300


@pytest.mark.skipif(not DEEP, reason="takes long: RAYSAE_DEEP_SEARCH=1")
@pytest.mark.parametrize("bits", BITS)
def test_two_runs_whose_answers_are_lost(place: Path, bits: str) -> None:
    Search(ObjectWorld, place, *BITS[bits]).all_orders(switches=1, faults=1)


# -- Damaged storages


def complete(search: Search) -> State:
    """Return the storage of a finished run."""
    world = search.world(OTHERS, ["a"])
    try:
        (process,) = world.processes
        while not process.ended:
            search._advance(process)
        return world.visible()
    finally:
        world.close()


def names(state: State, start: str) -> list[str]:
    return [name for name in state if name.startswith(BELOW + start)]


def data_file(state: State) -> str:
    (name,) = names(state, f"{PLAN[0].name}-")
    return name


def without(state: State, *names: str) -> State:
    return {name: data for name, data in state.items() if name not in names}


def damaged(state: State, damage: str) -> State:
    """Return a storage of which something was lost or written over."""
    data, mark = data_file(state), BELOW + mark_name(PLAN[0].name)
    (table,) = names(state, "shards-")
    unfinished = without(state, METADATA, table)
    return {
        "a mark without its file": without(unfinished, data),
        "a mark whose file is short": {**unfinished, data: state[data][:-3]},
        "a mark that is garbage": {**unfinished, mark: b'{"files": [{"na'},
        "a mark that is empty": {**unfinished, mark: b""},
        "no mark": without(unfinished, mark),
        "no specification": without(unfinished, f"{BELOW}spec.json"),
        "a finished artifact without a file": without(state, data),
        "a finished artifact whose file is short": {**state, data: b""},
        "a finished artifact without a table": without(state, table),
        "a finished artifact without a mark": without(state, mark),
        "a finished artifact without a mark and its file": without(state, data, mark),
        "dead attempts": {
            **unfinished,
            **{f"{BELOW}attempts/{PLAN[0].name}.work-{n}": b"dead" for n in (1, 2, 3)},
        },
    }[damage]


DAMAGES = (
    "a mark without its file",
    "a mark whose file is short",
    "a mark that is garbage",
    "a mark that is empty",
    "no mark",
    "no specification",
    "a finished artifact without a file",
    "a finished artifact whose file is short",
    "a finished artifact without a table",
    "a finished artifact without a mark",
    "a finished artifact without a mark and its file",
    "dead attempts",
)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("bits", ["a", "b"])
def test_a_run_mends_what_was_damaged(kind: MakeWorld, place: Path, damage: str, bits: str) -> None:
    """It is stopped at every step too: the next one mends it then."""
    whole = complete(Search(kind, place, ["a"], "a"))
    search = Search(kind, place, [bits], bits, check=lambda _: None)
    search.start = damaged(whole, damage)
    search.undisturbed = whole if bits == "a" else None
    search.one_process()
    end = search._run_alone(search.start)
    check_always(end)
    assert finished(end)
    if bits == "a":
        check_end(end, whole)


@pytest.mark.parametrize("damage", DAMAGES)
def test_two_runs_mend_what_was_damaged(kind: MakeWorld, place: Path, damage: str) -> None:
    whole = complete(Search(kind, place, ["a"], "a"))
    search = Search(kind, place, ["a", "a"], "a", check=lambda _: None)
    search.start = damaged(whole, damage)
    search.random_orders(range(500 if DEEP else 10))
    check_end(search._run_alone(search.start), whole)


REPLACED = {
    "a mark without its file",
    "a mark whose file is short",
    "a mark that is garbage",
    "a mark that is empty",
    "a finished artifact without a file",
    "a finished artifact whose file is short",
}
"""Damages of a mark that is there: of two runs that replace it at the same moment, the later one's
may stay, which `docs/storage.md` says."""


@pytest.mark.parametrize("damage", sorted({*DAMAGES} - REPLACED))
def test_two_runs_with_other_bits_mend_what_was_damaged(
    kind: MakeWorld, place: Path, damage: str
) -> None:
    whole = complete(Search(kind, place, ["a"], "a"))
    search = Search(kind, place, ["a", "b"], "c")
    search.start = damaged(whole, damage)
    search.check = check_always if not finished(search.start) else lambda _: None
    search.all_orders(switches=2 if DEEP else 1)
    check_always(search._run_alone(search.start))


def test_half_sent_and_unfinished_files_change_nothing(kind: MakeWorld, place: Path) -> None:
    search = Search(kind, place, ["a"], "a")
    whole = complete(search)
    left = {
        f"{BELOW}.tmp-00000000-1-1-0123456789abcdef": b"half",
        f"{BELOW}attempts/.tmp-garbage": b"",
    }
    check_end(without(search._run_alone({**OTHERS, **left}), *left), whole)


# -- The search finds what it is for


class WithoutFileSync(SimulatedPosix):
    """Does not bring contents to the disk."""

    def sync_file(self, path: Path) -> None:
        """Do nothing."""


class WithoutDirectorySync(SimulatedPosix):
    """Does not bring names to the disk."""

    def sync_directory(self, directory: Path) -> None:
        """Do nothing."""


class ReplacingLinks(SimulatedPosix):
    """Creates what is there already."""

    def link(self, source: Path, target: Path) -> None:
        """Take the name from whoever has it."""
        self.replace(source, target)


class WritingInPlace(SimulatedPosix):
    """Writes under the final name."""

    def replace(self, source: Path, target: Path) -> None:
        """Copy in two steps instead of moving."""
        data = source.read_bytes()
        for part in (data[: len(data) // 2], data):
            self.write(target, part)
        self.sync_file(target)
        self.unlink(source)


@pytest.mark.parametrize(
    ("posix", "found"),
    [
        (WithoutFileSync, "holds something else|Expecting value|Unterminated"),
        (WithoutDirectorySync, "which is not there|a loss of power can undo it"),
        (ReplacingLinks, "tell different|not there|written again"),
        (WritingInPlace, "holds something else|is damaged"),
    ],
)
def test_a_broken_file_system_is_found_out(
    place: Path, posix: type[SimulatedPosix], found: str
) -> None:
    class World(LocalWorld):
        pass

    World.posix = posix
    search = Search(World, place, *BITS["other bits"])
    with pytest.raises((BrokenError, ValueError), match=found):
        _one_and_two(search)


def _one_and_two(search: Search) -> None:
    search.one_process()
    search.all_orders(switches=1)


def test_a_store_without_conditional_writes_is_found_out(place: Path) -> None:
    class Ignoring(Client):
        def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
            super().pipe_file(path, data)

    class World(ObjectWorld):
        client = Ignoring

    search = Search(World, place, *BITS["other bits"])
    with pytest.raises(BrokenError, match=r"tell different|not there|written again"):
        _one_and_two(search)
