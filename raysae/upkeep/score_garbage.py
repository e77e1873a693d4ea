"""What of the score table nobody needs: old manifests, and files that no kept one lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from raysae.artifacts import MARK_SUFFIX, ScoreTable
from raysae.artifacts.row_groups import DATA, MARKS, key_of_file
from raysae.artifacts.score_table import MANIFESTS
from raysae.storage import Directory, Entry
from raysae.upkeep.clock import StorageClock
from raysae.upkeep.files import is_left_by_the_dead, temporary_part
from raysae.upkeep.inventory import is_name
from raysae.upkeep.listed import read_marks


@dataclass
class ScoreGarbage:
    """What can go, each in the order in which it is to go.

    Attributes:
        newest: Number of the latest manifest when this was looked up.
        manifests: Old ones, the oldest first.
        marks: Of row groups that nothing lists.
        data: Their files.
        left: Temporaries and attempt marks.
        others: Names of files that are no part of a score table, which are left alone.
    """

    newest: int
    manifests: list[Entry]
    marks: list[Entry]
    data: list[Entry]
    left: list[Entry]
    others: list[str]


def score_garbage(root: Directory, keep_manifests: int, clock: StorageClock) -> ScoreGarbage:
    """Look through the score table.

    Args:
        root: The storage.
        keep_manifests: How many of the latest manifests keep what they list.
        clock: What is younger than its limit stays anyway.

    Raises:
        DataError: A manifest that stays cannot be read, so that it is not known what it lists.
    """
    table = ScoreTable(root)
    # Listed first: what is published meanwhile is then listed by a manifest, or young.
    there = [entry for entry in table.directory.entries() if is_name(entry.key)]
    numbers = table.manifests.numbers()
    names = {f"{MANIFESTS}/{number:08d}.parquet": number for number in numbers}
    old = {
        entry.key: entry for entry in there if entry.key in names and clock.is_old(entry.modified)
    }
    gone = [name for name in sorted(names)[: -max(1, keep_manifests)] if name in old]
    kept = [number for name, number in names.items() if name not in gone]
    listed = {name for number in kept for name in table.files_of(number)}
    found = ScoreGarbage(max(numbers, default=0), [old[name] for name in gone], [], [], [], [])
    for entry in there:
        where = entry.key.partition("/")[0]
        if temporary_part(entry.key):
            if is_left_by_the_dead(entry.key) or clock.is_old(entry.modified):
                found.left.append(entry)
        elif where == "attempts" and clock.is_old(entry.modified):
            found.left.append(entry)
        elif where in {MARKS, DATA} and _is_row_group(entry.key):
            if entry.key not in listed and clock.is_old(entry.modified):
                (found.marks if where == MARKS else found.data).append(entry)
        elif where != "attempts" and entry.key not in names:
            found.others.append(entry.key)
    _keep_marked(found, there, listed)
    return found


def _keep_marked(found: ScoreGarbage, there: list[Entry], listed: set[str]) -> None:
    """Take off the files whose marks stay for their age: a mark goes before what it names."""
    gone = {entry.key for entry in found.marks} | listed
    young = {
        key_of(entry.key)
        for entry in there
        if entry.key.startswith(f"{MARKS}/") and entry.key not in gone
    }
    found.data = [entry for entry in found.data if key_of(entry.key) not in young]


def key_of(name: str) -> str:
    """Return the row group's key that a mark's or data file's name tells."""
    last = name.rpartition("/")[2]
    return last.removesuffix(MARK_SUFFIX) if last.endswith(MARK_SUFFIX) else key_of_file(last)


def _is_row_group(name: str) -> bool:
    return name.endswith(MARK_SUFFIX if name.startswith(f"{MARKS}/") else ".parquet")


def scored_with(root: Directory, clock: StorageClock) -> set[str] | None:
    """Return the ids that the live and the young row groups were made from, as their marks tell.

    One mark of each lineage is read. None if a mark does not tell: then anything may be needed.
    """
    table = ScoreTable(root)
    marks: set[str] = set()
    for _, of_lineage in groupby(table.live(), key=lambda live: live.lineage):
        marks.add(next(of_lineage).mark.removesuffix(MARK_SUFFIX))
    marks |= set(_young_marks(table, clock))
    ids: set[str] = set()
    for state in read_marks(table.directory, sorted(marks)):
        inputs = (state.mark or {}).get("inputs")
        if not isinstance(inputs, dict):
            return None
        ids |= {value for value in inputs.values() if isinstance(value, str)}
    return ids


def _young_marks(table: ScoreTable, clock: StorageClock) -> Iterator[str]:
    for entry in (table.directory / MARKS).entries():
        if entry.key.endswith(MARK_SUFFIX) and not clock.is_old(entry.modified):
            yield f"{MARKS}/{entry.key.removesuffix(MARK_SUFFIX)}"
