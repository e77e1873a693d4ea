"""Which files an artifact should have, as its metadata, its table of shards and its marks say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from raysae.artifacts import MARK_SUFFIX, FileRecord
from raysae.artifacts.marks import Mark, mark_name, parse_mark
from raysae.artifacts.shard_list import shard_files
from raysae.errors import DataError, RaysaeError, StorageError
from raysae.storage import Directory, check_name
from raysae.upkeep.inventory import Found, is_name

MARKS_AT_ONCE = 256
"""Marks in memory at the same time."""

FAILURES = 3
"""Files one after the other that cannot be read: then the storage is out of reach, not a file."""


class MarkState(NamedTuple):
    """A mark, or why it cannot be read.

    Attributes:
        shard: The shard's name.
        mark: Its content; None if it is not there or cannot be read.
        problem: Why it cannot be read; empty if it can, or is not there.
        certain: Whether it is damaged for sure, and not out of reach for now.
    """

    shard: str
    mark: Mark | None
    problem: str
    certain: bool = True


def mark_names(directory: Directory) -> Iterator[str]:
    """Yield the shards that have a mark, by one listing."""
    for entry in directory.entries():
        if entry.key.endswith(MARK_SUFFIX) and is_name(entry.key):
            yield entry.key.removesuffix(MARK_SUFFIX)


def read_marks(directory: Directory, shards: Iterable[str]) -> Iterator[MarkState]:
    """Yield the marks of shards in order, some hundred in memory."""
    rest = iter(shards)
    while part := list(islice(rest, MARKS_AT_ONCE)):
        names = [mark_name(shard) for shard in part]
        for shard, name, data in zip(part, names, _contents(directory, names), strict=True):
            yield _state(shard, directory.describe(name), data)


def _contents(directory: Directory, names: list[str]) -> list[bytes | StorageError | None]:
    """Return what files hold, or why that cannot be read: one of them hides no other.

    Raises:
        StorageError: Several of them cannot be read.
    """
    try:
        return list(directory.read_many(names))
    except StorageError:
        found: list[bytes | StorageError | None] = []
        for name in names:
            found.append(_content(directory, name))
            last = found[-FAILURES:]
            if len(last) == FAILURES and all(isinstance(one, StorageError) for one in last):
                raise
        return found


def _content(directory: Directory, name: str) -> bytes | StorageError | None:
    try:
        return next(directory.read_many([name]))
    except StorageError as error:
        return error


def _state(shard: str, where: str, data: bytes | StorageError | None) -> MarkState:
    if data is None:
        return MarkState(shard, None, "")
    if isinstance(data, StorageError):
        return MarkState(shard, None, str(data).rstrip("."), certain=False)
    try:
        return MarkState(shard, parse_mark(data, where), "")
    except RaysaeError as error:
        return MarkState(shard, None, str(error).rstrip("."))


def records_of(mark: Mark) -> list[FileRecord]:
    """Return the files that a mark lists; `parse_mark` has looked at them."""
    return [FileRecord(one["name"], one["size"], one["sha256"]) for one in mark["files"]]


@dataclass
class Listed:
    """What an artifact should consist of.

    Attributes:
        sizes: Bytes of each file, by name.
        shards: Complete shards.
        rows: Rows that were used.
        rejected: Rows that could not be.
        reasons: Rejected rows by reason.
        problems: What cannot be read, as sentences.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    shards: int = 0
    rows: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add_mark(self, mark: Mapping[str, Any], times: int = 1) -> None:
        """Count a shard by its mark, or with -1 no longer."""
        self.shards += times
        self.rows += times * as_count(mark.get("rows"))
        self.rejected += times * as_count(mark.get("rejected"))
        for reason, count in reasons_in(mark).items():
            self.reasons[reason] += times * count


def listed_files(found: Found) -> Listed:
    """Gather what an artifact should consist of: without its marks if it is finished.

    The marks of a finished artifact are read only where rows were rejected whose reasons its
    metadata does not tell.
    """
    if found.metadata is None:
        return _by_marks(found.directory)
    listed = Listed(sizes={record.name: record.size for record in found.own_files})
    listed.reasons.update(reasons_in(found.metadata))
    last, with_rejected = "", []
    try:
        for shard, rows, rejected, file in shard_files(found.directory, found.own_files):
            check_name(file.name)
            listed.sizes[file.name] = file.size
            if shard != last:
                last = shard
                listed.shards += 1
                listed.rows += rows
                listed.rejected += rejected
                if rejected and not listed.reasons:
                    with_rejected.append(shard)
    except FileNotFoundError as error:
        listed.problems.append(f"its table of shards is missing ({error})")
    except RaysaeError as error:
        listed.problems.append(str(error).rstrip("."))
    for state in read_marks(found.directory, with_rejected):
        listed.reasons.update(reasons_in(state.mark or {}))
    listed.rows = as_count(found.metadata.get("rows")) or listed.rows
    listed.rejected = as_count(found.metadata.get("rejected")) or listed.rejected
    return listed


def _by_marks(directory: Directory) -> Listed:
    """Gather what the marks of an unfinished artifact say."""
    listed = Listed()
    for state in read_marks(directory, mark_names(directory)):
        if state.problem:
            listed.problems.append(f"{state.shard}: {state.problem}")
        elif state.mark is not None:
            listed.add_mark(state.mark)
            listed.sizes.update((record.name, record.size) for record in records_of(state.mark))
    return listed


def shard_of_files(found: Found, names: set[str]) -> dict[str, str]:
    """Return to which shards some files belong; those of none are left out."""
    shards = {}
    if found.metadata is None:
        for state in read_marks(found.directory, mark_names(found.directory)):
            for record in records_of(state.mark) if state.mark else ():
                if record.name in names:
                    shards[record.name] = state.shard
        return shards
    try:
        for listed in shard_files(found.directory, found.own_files):
            if listed.file.name in names:
                shards[listed.file.name] = listed.shard
    except (FileNotFoundError, DataError):
        pass  # `listed_files` tells of it
    return shards


def reasons_in(content: Mapping[str, Any]) -> Counter[str]:
    """Count rejected rows by reason, in a mark (a list of rows) or in metadata (counts)."""
    found: Counter[str] = Counter()
    for name in ("rejections", "rejected"):
        value = content.get(name)
        if isinstance(value, Mapping):
            found.update({str(reason): as_count(count) for reason, count in value.items()})
        elif isinstance(value, list):
            found.update(str(row.get("reason")) for row in value if isinstance(row, Mapping))
        if found:
            return found
    return found


def as_count(value: Any) -> int:
    """Return a count that a mark or metadata holds; 0 where it holds none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
