"""Finding and reading the data files of many row groups, with few requests.

Keys are hashes, so the marks and files of a job's row groups lie all over the listings. Few are
looked up one by one. For many, sorted by key and cut where the first digits of the key change, the
listings of each piece are complete but for those of other jobs; and what the latest manifest tells
of a row group is what its mark told when it was published, so that the mark need not be read as
long as that file is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysae.artifacts.files import FileRecord, records_from_json
from raysae.artifacts.manifest_file import LiveGroup
from raysae.artifacts.marks import Mark, first_problem, mark_name, parse_mark
from raysae.artifacts.row_groups import RowGroup, key_of_file
from raysae.errors import DataError, RaysaeError
from raysae.storage import Directory

MANY = 1000
"""From so many row groups on, listings cost less than looking each of them up: one page of a
listing has a thousand names."""


_IDENTITY = [field.name for field in fields(RowGroup)]
_KEY = r"/(?P<key>[0-9a-f]+)-[^/]*$"


class GroupState(NamedTuple):
    """What a storage says of one row group.

    Attributes:
        group: Which.
        live: Its data file, as a manifest lists it, if the row group is complete.
        problem: Why a mark that is there does not count; empty if there is none, or it counts.
        listed: Whether the rows of a manifest that were given list just this file.
    """

    group: RowGroup
    live: LiveGroup | None
    problem: str
    listed: bool

    def incomplete(self, directory: Directory) -> DataError:
        """Return the error for somebody who needs this row group, which is not complete."""
        group, why = self.group, f" ({self.problem})" if self.problem else ""
        return DataError(
            f"{directory}: rows {group.start:,} to {group.stop:,} of {group.corpus} by "
            f"{group.scorer} ({group.key}) are not complete{why}; score the corpus again."
        )


class MissingGroups(NamedTuple):
    """The row groups that are still to be scored.

    Attributes:
        groups: In order.
        problems: One sentence for each of them that was complete once and is not any more.
    """

    groups: list[RowGroup]
    problems: list[str]


def find_files(
    directory: Directory, groups: Iterable[RowGroup], listed: pa.Table | None
) -> Iterator[GroupState]:
    """Yield the state of every row group once, in order of their keys.

    Args:
        directory: The score table's.
        groups: Which.
        listed: Rows of a manifest that may list them: they save reading their marks.
    """
    ordered = sorted(set(groups), key=lambda group: group.key)
    known = None if listed is None else _Known(listed, ordered)
    start = 0
    for chunk in _chunks(ordered):
        stop = start + len(chunk)
        yield from _states(directory, chunk, known.part(start, stop) if known else {})
        start = stop


def _chunks(ordered: Sequence[RowGroup]) -> Iterator[list[RowGroup]]:
    """Cut row groups where the first digits of their keys change, into pieces of `MANY` or more."""
    digits = 0
    while len(ordered) >= MANY * 16 ** (digits + 1):
        digits += 1
    for _, chunk in groupby(ordered, key=lambda group: group.key[:digits]):
        yield list(chunk)


class _Known:
    """What a manifest tells of some row groups.

    Args:
        listed: The manifest's rows.
        ordered: The row groups.
    """

    def __init__(self, listed: pa.Table, ordered: Sequence[RowGroup]) -> None:
        self._table = listed
        keys = pc.struct_field(pc.extract_regex(self._table["path"], _KEY), "key")
        wanted = pa.array([group.key for group in ordered], pa.string())
        self._places = pc.index_in(wanted, value_set=keys)

    def part(self, start: int, stop: int) -> dict[str, LiveGroup]:
        """Return what is known of a range of the row groups, by key."""
        places = self._places.slice(start, stop - start).drop_null()
        rows = zip(*(c.to_pylist() for c in self._table.take(places).columns), strict=True)
        return {key_of_file(found.path): found for found in (LiveGroup(*row) for row in rows)}


def _states(
    directory: Directory, chunk: Sequence[RowGroup], known: Mapping[str, LiveGroup]
) -> Iterator[GroupState]:
    """Look up row groups whose keys begin alike."""
    marked = chunk
    if known or len(chunk) >= MANY:
        sizes = directory.sizes([mark_name(group.shard) for group in chunk])
        marked = [group for group, size in zip(chunk, sizes, strict=True) if size is not None]
    found = {group.key: known[group.key] for group in marked if group.key in known}
    problems = _read_marks(directory, [g for g in marked if g.key not in found], found)
    problems |= _problems(directory, found)
    # Lost, or altered, since it was published: the mark may name another file by now.
    stale = [group for group in marked if group.key in known and group.key in problems]
    again = {state.group: state for state in _states(directory, stale, {})} if stale else {}
    for group in chunk:
        problem = problems.get(group.key, "")
        live = None if problem else found.get(group.key)
        state = GroupState(group, live, problem, live is not None and group.key in known)
        yield again.get(group, state)


def _read_marks(
    directory: Directory, groups: Sequence[RowGroup], found: dict[str, LiveGroup]
) -> dict[str, str]:
    """Add what marks tell to `found`; return what is wrong with marks, by key."""
    problems = {}
    names = [mark_name(group.shard) for group in groups]
    for group, name, data in zip(groups, names, directory.read_many(names), strict=True):
        if data is not None:
            where = directory.describe(name)
            try:
                found[group.key] = live_group(group, parse_mark(data, where), where)
            except RaysaeError as error:
                problems[group.key] = str(error)
    return problems


def is_mark_of(group: RowGroup, mark: Mark) -> bool:
    """Whether a mark that can be read is this row group's."""
    try:
        live_group(group, mark, "")
    except DataError:
        return False
    return True


def live_group(group: RowGroup, mark: Mark, where: str) -> LiveGroup:
    """Return what a manifest lists of a row group, by its mark.

    Raises:
        DataError: The mark is of something else.
    """
    identity = {name: getattr(group, name) for name in _IDENTITY}
    try:
        (file,) = records_from_json(mark["files"])
        if {name: mark[name] for name in identity} == identity:
            return LiveGroup(
                **identity, path=file.name, rows=mark["rows"], size=file.size, sha256=file.sha256
            )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} is no mark of a row group; delete it and run again.") from error
    raise DataError(f"{where} is the mark of another row group; delete it and run again.")


def _problems(directory: Directory, found: Mapping[str, LiveGroup]) -> dict[str, str]:
    """Return which files are not there as they were listed, by key; one listing a partition."""
    sizes: dict[str, int | None] = {}
    paths = sorted(live.path for live in found.values())
    for _, part in groupby(paths, key=lambda path: path.rpartition("/")[0]):
        names = list(part)
        sizes.update(zip(names, directory.sizes(names), strict=True))
    problems = {}
    for key, live in found.items():
        record = FileRecord(live.path, live.size, live.sha256)
        if problem := first_problem(directory, [record], sizes):
            problems[key] = problem
    return problems


def read_group_marks(directory: Directory, groups: Sequence[RowGroup]) -> Iterator[Mark]:
    """Yield the marks of row groups, in order; some of them are in memory at once.

    Raises:
        DataError: A row group has no mark, or a damaged one.
    """
    names = [mark_name(group.shard) for group in groups]
    for group, name, data in zip(groups, names, directory.read_many(names), strict=True):
        if data is None:
            raise GroupState(group, None, "", listed=False).incomplete(directory)
        yield parse_mark(data, directory.describe(name))


def read_files(
    directory: Directory, files: Sequence[LiveGroup], columns: list[str]
) -> Iterator[pa.Table]:
    """Yield the scores in some data files, in order; some of them are in memory at once.

    Raises:
        DataError: A file is missing, or its bytes are not those that were listed.
    """
    contents = directory.read_many([live.path for live in files])
    for live, data in zip(files, contents, strict=True):
        if data is None or hashlib.sha256(data).hexdigest() != live.sha256:
            what = "is missing" if data is None else "is damaged: its bytes are not those listed"
            where = directory.describe(live.path)
            raise DataError(f"{where} {what}; delete it and score the corpus again.")
        yield pq.read_table(pa.BufferReader(data), columns=columns, partitioning=None)
