"""Any sequence of what two runs do, and a kill between any two steps of one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.artifacts import RowGroup, ScoreTable
from raysae.storage import Directory, is_temporary
from raysae.storage.local import LocalBackend
from raysae.storage.posix import FileStat, Posix
from tests.artifacts.scores import (
    FIRST,
    NONE_REJECTED,
    Hooked,
    add,
    data_file,
    live_groups,
    loose_files,
    part,
    rows,
    unsynced,
)
from tests.reference.score_table import ScoreTableTwin

GROUPS = st.builds(
    lambda lineage, start, length: RowGroup("c", "l0", lineage, start, start + length),
    st.sampled_from("xy"),
    st.integers(0, 9),
    st.integers(1, 4),
)
RUNS = st.sampled_from([0.25, 0.5])
SERIES = st.sampled_from("st")
STEPS = st.one_of(
    st.tuples(st.just("write"), RUNS, GROUPS),
    st.tuples(st.just("publish"), RUNS, SERIES, GROUPS),
    st.tuples(st.just("lose"), RUNS, GROUPS),
    st.tuples(st.just("overtaken"), RUNS, SERIES, GROUPS, GROUPS),
)


class Runs:
    """Two runs on one table, which come to other bits, and what the twin says of it."""

    def __init__(self, root: Path) -> None:
        self.backend = Hooked(root)
        self.table = ScoreTable(Directory(self.backend))
        self.twin = ScoreTableTwin()

    def write(self, score: float, group: RowGroup) -> None:
        self.table.write(group, rows(group, score), NONE_REJECTED)
        self.twin.write(group, score)

    def publish(self, score: float, series: str, *groups: RowGroup) -> None:
        for group in groups:
            self.write(score, group)
        self.table.publish(groups, series)
        self.twin.publish(groups, series)

    def lose(self, score: float, group: RowGroup) -> None:
        """Lose a data file, and score its rows anew, as the next run does."""
        if self.table.mark(group) is not None:
            data_file(self.table, group).unlink()
            self.twin.lose(group)
            self.write(score, group)
            for series, groups in self.twin.series.items():
                if group in groups:
                    self.publish(score, series, *groups)

    def overtaken(self, score: float, series: str, group: RowGroup, other: RowGroup) -> None:
        """The other run publishes after this one has read the latest manifest."""
        self.write(score, group)

        def overtake(key: str) -> None:
            if "/manifests/" in key:
                self.backend.before_create = lambda key: None
                self.publish(0.75 - score, "overtaking", other)

        self.backend.before_create = overtake
        self.table.publish([group], series)
        self.backend.before_create = lambda key: None
        self.twin.publish([group], series)

    def live_scores(self) -> dict[tuple[str, str, int], float]:
        found: dict[tuple[str, str, int], float] = {}
        for live in self.table.live():
            for row in self.table.read([live.group], ["ordinal", "score"]).to_pylist():
                sample = (live.series, live.lineage, row["ordinal"])
                assert sample not in found, "a row is counted twice"
                found[sample] = row["score"]
        return found


@given(st.lists(STEPS, max_size=10))
@settings(max_examples=60)
def test_two_runs_leave_what_the_twin_says(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        runs = Runs(Path(directory))
        for name, *arguments in steps:
            getattr(runs, name)(*arguments)
            assert runs.live_scores() == runs.twin.scores()


class KilledError(BaseException):
    """The process is no more."""


class Dying(Posix):
    """A file system on which a process ends before its nth step, and does nothing after it."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def _step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise KilledError

    def write(self, path: Path, data: bytes) -> None:
        self._step()
        super().write(path, data)

    def sync_file(self, path: Path) -> None:
        self._step()

    def replace(self, source: Path, target: Path) -> None:
        self._step()
        super().replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._step()
        super().link(source, target)

    def sync_directory(self, directory: Path) -> None:
        self._step()

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)

    def make_directory(self, directory: Path) -> None:
        self._step()
        super().make_directory(directory)

    def stat(self, path: Path) -> FileStat | None:
        self._step()
        return super().stat(path)


def survives(root: Path, steps: int, work: Callable[[ScoreTable], object]) -> bool:
    """Do something in a process that ends before a step; return whether it came to the end."""
    try:
        work(ScoreTable(Directory(LocalBackend(root, Dying(steps)))))
    except KilledError:
        return False
    return True


def test_a_kill_between_any_two_steps_leaves_the_old_or_the_new_manifest(tmp_path: Path) -> None:
    new = part(2, 8)
    steps, seen = 0, set()
    while True:
        root = tmp_path / str(steps)
        table = ScoreTable(unsynced(root))
        add(table, FIRST)
        ended = survives(root, steps, lambda one: add(one, new, score=0.75))
        (live,) = live_groups(table)
        seen.add(live)
        assert live in {FIRST, new}
        assert table.read([live]).equals(rows(live, 0.5 if live == FIRST else 0.75))
        if ended:
            break
        # Another run, or the same job again, finds everything usable.
        add(table, new, score=0.75)
        assert live_groups(table) == [new]
        assert {name for name in loose_files(table) if not is_temporary(name)} == set()
        steps += 1
    assert seen == {FIRST, new}
    assert steps > 15


@pytest.mark.parametrize("score", [0.5, 0.75])
def test_a_kill_while_lost_scores_are_written_again_leaves_them_missing_or_there(
    tmp_path: Path, score: float
) -> None:
    steps = 0
    while True:
        root = tmp_path / str(steps)
        table = ScoreTable(unsynced(root))
        add(table, FIRST, score=0.5)
        data_file(table, FIRST).unlink()
        ended = survives(root, steps, lambda one: add(one, FIRST, score=score))
        if table.mark(FIRST) is not None:
            table.publish([FIRST], "s")
            assert table.read([FIRST]).equals(rows(FIRST, score))
        else:
            assert table.missing([FIRST]).groups == [FIRST]
        if ended:
            break
        steps += 1
    assert table.are_live([FIRST], "s")
