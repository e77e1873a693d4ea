"""What is to be compared in a storage, and what is found wrong before a byte of it is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from typing import NamedTuple

from raysae.artifacts import METADATA_FILE, FileRecord, ScoreTable
from raysae.artifacts.marks import mark_name
from raysae.artifacts.row_groups import MARKS
from raysae.artifacts.score_table import SCORES
from raysae.artifacts.shard_list import is_shard_list, shard_files
from raysae.errors import RaysaeError
from raysae.storage import Directory
from raysae.upkeep.hashing import Check, Outcome, compare
from raysae.upkeep.inventory import Found
from raysae.upkeep.listed import MARKS_AT_ONCE, mark_names, read_marks, records_of


class Damage(NamedTuple):
    """Something that is not as it was written.

    Attributes:
        owner: Whose it is: `<kind>/<id>` or `scores`.
        shard: The shard that it belongs to; empty if it is the artifact's own.
        where: The owner's directory.
        name: The file.
        problem: What is wrong with it, to be put after its name.
        certain: Whether it is surely lost, so that making it again is right.
    """

    owner: str
    shard: str
    where: Directory
    name: str
    problem: str
    certain: bool = True


def damage_of(outcome: Outcome) -> Damage:
    """Return what a comparison found wrong."""
    check, _, problem, certain = outcome
    return Damage(check.owner, check.shard, check.directory, check.record.name, problem, certain)


def checks_of(found: Found) -> Iterator[Check | Damage]:
    """Yield every file that an artifact's metadata, table of shards and marks list."""
    for problem in found.problems:
        what = f"cannot be used ({problem.sentence})"
        name = problem.file or "the directory"
        certain = problem.certain and name == METADATA_FILE
        yield Damage(found.name, "", found.directory, name, what, certain)
    if not found.id:
        return
    if found.metadata is None:
        yield from _of_marks(found.name, found.directory)
        return
    for record in found.own_files:
        yield Check(found.name, "", found.directory, record)
    tables = [record for record in found.own_files if is_shard_list(record.name)]
    if any(compare(Check(found.name, "", found.directory, table)).problem for table in tables):
        # The check above tells of the table; the marks say the same as it did.
        yield from _of_marks(found.name, found.directory)
    else:
        yield from _of_table(found)


def _of_table(found: Found) -> Iterator[Check | Damage]:
    """Yield the files of a finished artifact's shards, and the marks that are not as they were."""
    listed = shard_files(found.directory, found.own_files)
    groups = groupby(listed, lambda one: one.shard)
    shards = ((shard, [one.file for one in group]) for shard, group in groups)
    while part := list(islice(shards, MARKS_AT_ONCE)):
        states = read_marks(found.directory, [shard for shard, _ in part])
        for state, (shard, records) in zip(states, part, strict=True):
            problem = state.problem and f"cannot be read ({state.problem})"
            if state.mark is None:
                problem = problem or "is missing"
            elif sorted(records_of(state.mark)) != sorted(records):
                problem = "lists other files than the artifact's table of shards"
            if problem:
                yield Damage(found.name, shard, found.directory, mark_name(shard), problem)
            for record in records:
                yield Check(found.name, shard, found.directory, record)


def _of_marks(owner: str, directory: Directory, below: str = "") -> Iterator[Check | Damage]:
    """Yield the files of all shards that have a mark.

    Args:
        owner: Whose they are.
        directory: The owner's directory, which files' names begin in.
        below: Where the marks lie in it.
    """
    prefix = f"{below}/" if below else ""
    names = mark_names(directory / below if below else directory)
    for state in read_marks(directory, (f"{prefix}{name}" for name in names)):
        if state.problem:
            why = f"does not count ({state.problem.partition(';')[0]})"
            yield Damage(owner, state.shard, directory, mark_name(state.shard), why)
        for record in records_of(state.mark) if state.mark else ():
            yield Check(owner, state.shard, directory, record)


def score_checks(root: Directory) -> Iterator[Check | Damage]:
    """Yield every file that the latest manifest of the score table or a mark lists, once."""
    table = ScoreTable(root)
    live: set[str] = set()
    try:
        for group in table.latest():
            live.add(group.path)
            record = FileRecord(group.path, group.size, group.sha256)
            yield Check(SCORES, group.group.shard, table.directory, record)
    except RaysaeError as error:
        problem = f"cannot be read ({str(error).rstrip('.')})"
        yield Damage(SCORES, "", table.directory, "the latest manifest", problem, certain=False)
    for one in _of_marks(SCORES, table.directory, MARKS):
        if not isinstance(one, Check) or one.record.name not in live:
            yield one
