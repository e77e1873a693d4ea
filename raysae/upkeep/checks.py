"""What is to be compared in a storage, and what is found wrong before a byte of it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from raysae.artifacts import METADATA_FILE, FileRecord, ScoreTable
from raysae.artifacts.marks import Mark, mark_name
from raysae.artifacts.row_groups import MARKS, key_of_file
from raysae.artifacts.score_table import SCORES
from raysae.artifacts.shard_list import ListedFile, is_shard_list, shard_files
from raysae.errors import RaysaeError, StorageError
from raysae.storage import Directory
from raysae.upkeep.hashing import Check, Outcome, compare
from raysae.upkeep.inventory import Found, look_at
from raysae.upkeep.listed import MARKS_AT_ONCE, MarkState, mark_names, read_marks, records_of


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
    for record in found.own_files:
        yield Check(found.name, "", found.directory, record)
    tables = [record for record in found.own_files if is_shard_list(record.name)]
    damaged = [compare(Check(found.name, "", found.directory, table)).problem for table in tables]
    if found.metadata is not None and not any(damaged):
        yield from _of_table(found)
    else:
        # Of a damaged table the check above tells; the marks say the same as it did.
        yield from _of_marks(found)


def _of_table(found: Found) -> Iterator[Check | Damage]:
    """Yield the files of a finished artifact's shards, and the marks that are not as they were."""
    listed = shard_files(found.directory, found.own_files)
    groups = groupby(listed, lambda one: one.shard)
    shards = ((shard, list(group)) for shard, group in groups)
    while part := list(islice(shards, MARKS_AT_ONCE)):
        states = read_marks(found.directory, [shard for shard, _ in part])
        for state, (shard, files) in zip(states, part, strict=True):
            yield from _marks_damage(found.name, found.directory, state, _unlike(state.mark, files))
            for one in files:
                yield Check(found.name, shard, found.directory, one.file)


def _unlike(mark: Mark | None, files: Sequence[ListedFile]) -> str:
    """Say what a mark tells otherwise than an artifact's table of shards."""
    if mark is None:
        return "is missing"
    if sorted(records_of(mark)) != sorted(one.file for one in files):
        return "lists other files than the artifact's table of shards"
    if any((one.rows, one.rejected) != (mark["rows"], mark["rejected"]) for one in files):
        return "tells of other rows than the artifact's table of shards"
    return ""


def _marks_damage(
    owner: str, directory: Directory, state: MarkState, problem: str
) -> Iterator[Damage]:
    """Yield a mark that cannot be read, or of which something else is wrong."""
    if state.problem:
        problem = f"does not count ({state.problem.partition(';')[0]})"
    if problem:
        yield Damage(owner, state.shard, directory, mark_name(state.shard), problem, state.certain)


def _of_marks(found: Found) -> Iterator[Check | Damage]:
    """Yield the files of all shards that have a mark."""
    for state in _marked(found.name, found.directory):
        if isinstance(state, Damage):
            yield state
            continue
        yield from _marks_damage(found.name, found.directory, state, "")
        for record in records_of(state.mark) if state.mark else ():
            yield Check(found.name, state.shard, found.directory, record)


def _marked(owner: str, directory: Directory, below: str = "") -> Iterator[MarkState | Damage]:
    """Yield all marks that are there.

    Args:
        owner: Whose they are.
        directory: The owner's directory, which files' names begin in.
        below: Where the marks lie in it.
    """
    prefix = f"{below}/" if below else ""
    try:
        names = mark_names(directory / below if below else directory)
        yield from read_marks(directory, (f"{prefix}{name}" for name in names))
    except StorageError as error:
        problem = f"cannot be listed ({str(error).rstrip('.')})"
        yield Damage(owner, "", directory, below or "the directory", problem, certain=False)


def score_checks(root: Directory) -> Iterator[Check | Damage]:
    """Yield every file that the latest manifest of the score table or a mark lists, once."""
    table = ScoreTable(root)
    live: dict[str, int] = {}
    try:
        for group in table.latest():
            if group.path not in live:
                record = FileRecord(group.path, group.size, group.sha256)
                live[group.path] = hash((record, group.rows))
                yield Check(SCORES, group.group.shard, table.directory, record)
    except RaysaeError as error:
        problem = f"cannot be read ({str(error).rstrip('.')})"
        yield Damage(SCORES, "", table.directory, "the latest manifest", problem, certain=False)
    yield from _of_score_marks(table.directory, live)


def _of_score_marks(directory: Directory, live: dict[str, int]) -> Iterator[Check | Damage]:
    """Yield the files that marks list alone, and marks that tell otherwise than the manifest.

    Args:
        directory: The score table's.
        live: What the manifest lists, by path: a hash of a file's record and its rows.
    """
    unmarked = {key_of_file(path) for path in live}
    for state in _marked(SCORES, directory, MARKS):
        if isinstance(state, Damage):
            yield state
            return
        unmarked.discard(state.shard.removeprefix(f"{MARKS}/"))
        problem, others = "", []
        for record in records_of(state.mark) if state.mark else ():
            if record.name not in live:
                others.append(Check(SCORES, state.shard, directory, record))
            elif state.mark and live[record.name] != hash((record, state.mark["rows"])):
                problem = "tells otherwise than the latest manifest"
        yield from _marks_damage(SCORES, directory, state, problem)
        yield from others
    for key in sorted(unmarked):
        shard = f"{MARKS}/{key}"
        yield Damage(SCORES, shard, directory, mark_name(shard), "is missing")


def still_damaged(root: Directory, damage: Iterable[Damage]) -> Iterator[Damage]:
    """Look again at what was surely lost, for a run may have made it again since.

    Args:
        root: The storage.
        damage: What was found a while ago, in hours of reading.
    """
    owners: dict[str, set[tuple[str, str]]] = {}
    for one in damage:
        if one.certain:
            owners.setdefault(one.owner, set()).add((one.shard, one.name))
    for owner, files in owners.items():
        kind, _, id_ = owner.partition("/")
        checks = score_checks(root) if owner == SCORES else checks_of(look_at(root, kind, id_))
        for check in checks:
            if _is_one_of(files, check):
                again = check if isinstance(check, Damage) else damage_of(compare(check))
                if again.problem and again.certain:
                    yield again


def _is_one_of(files: set[tuple[str, str]], one: Check | Damage) -> bool:
    name = one.name if isinstance(one, Damage) else one.record.name
    return (one.shard, name) in files
