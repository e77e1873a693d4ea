"""Done marks: one small file per shard, which alone says that the shard is complete.

`<shard>.done.json` names the shard's files with sizes and checksums. It is written after them, by
whichever run comes first: another one at the same time finds it and takes its own files away again.
A mark whose files are not there with their sizes is none, and its shard is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, NamedTuple

from raysae.artifacts.files import FileRecord, records_from_json, records_to_json
from raysae.errors import DataError, RaysaeError, StorageError
from raysae.storage import Directory, check_name, parse_json, to_json

MARK_SUFFIX = ".done.json"

Mark = dict[str, Any]

_REJECTION = {"sample_id": str, "ordinal": int, "reason": str, "detail": str}
"""What a mark tells of each row that could not be used."""


def mark_name(shard: str) -> str:
    """Return the name of a shard's mark."""
    return f"{shard}{MARK_SUFFIX}"


def write_mark(
    directory: Directory,
    shard: str,
    files: Sequence[FileRecord],
    content: Mapping[str, Any],
    counts: Callable[[Mark], bool] = lambda _: True,
) -> Mark:
    """Say that a shard is complete, unless another run has said so already.

    Args:
        directory: The artifact.
        shard: The shard's name.
        files: Its data files, published before.
        content: `rows`, `rejected` and `rejections`, without which it is none, and what the stage
            adds.
        counts: Whether a mark that lies there already is one of this very shard.

    Returns:
        The mark that counts: this one, or that of the run that came first.
    """
    mark: Mark = {**content, "files": records_to_json(files)}
    name = mark_name(shard)
    if directory.create(name, to_json(mark)):
        return mark
    first = read_mark(directory, shard)
    if first is None or not counts(first):
        directory.put_json(name, mark)
        return mark
    counted = {record.name for record in records_from_json(first["files"])}
    for record in files:
        if record.name not in counted:
            # Where nothing can be deleted, the file stays, and nobody reads it.
            with suppress(StorageError):
                directory.delete(record.name)
    return first


def read_mark(directory: Directory, shard: str) -> Mark | None:
    """Return a shard's mark if the shard is complete, else None."""
    return next(read_marks(directory, [shard])).mark


class ShardState(NamedTuple):
    """What a storage says of one shard.

    Attributes:
        shard: The shard's name.
        mark: Its mark, if it is complete.
        problem: Why a mark that is there does not count; empty if there is none, or it counts.
    """

    shard: str
    mark: Mark | None
    problem: str


def read_marks(directory: Directory, shards: Iterable[str]) -> Iterator[ShardState]:
    """Yield what is known of many shards, in order.

    Few requests for many shards, in memory that does not grow with them. Contents are not read:
    a file that was altered, but kept its size, is found by verification.

    Args:
        directory: The artifact.
        shards: Names; those that have all but their last three characters in common should follow
            each other.
    """
    for _, group in groupby(shards, key=lambda shard: shard[:-3]):
        yield from _read_group(directory, list(group))


def _read_group(directory: Directory, shards: Sequence[str]) -> Iterator[ShardState]:
    """Read the marks of shards whose names differ in their last characters."""
    names = [mark_name(shard) for shard in shards]
    sizes = directory.sizes(names)
    there = [name for name, size in zip(names, sizes, strict=True) if size is not None]
    marks: dict[str, Mark] = {}
    problems: dict[str, str] = {}
    for name, data in zip(there, directory.read_many(there), strict=True):
        if data is not None:
            try:
                marks[name] = parse_mark(data, directory.describe(name))
            except RaysaeError as error:
                problems[name] = str(error)
    files = {name: records_from_json(mark["files"]) for name, mark in marks.items()}
    listed = [record.name for records in files.values() for record in records]
    found = dict(zip(listed, directory.sizes(listed), strict=True))
    for shard, name in zip(shards, names, strict=True):
        problem = problems.get(name) or first_problem(directory, files.get(name, []), found)
        yield ShardState(shard, None if problem else marks.get(name), problem)


def first_problem(
    directory: Directory, records: Sequence[FileRecord], sizes: Mapping[str, int | None]
) -> str:
    """Say which file is not there as it was listed, or nothing."""
    for record in records:
        size = sizes[record.name]
        if size is None:
            return f"{directory.describe(record.name)} is missing"
        if size != record.size:
            return (
                f"{directory.describe(record.name)} has {size:,} bytes instead of {record.size:,}"
            )
    return ""


def parse_mark(data: bytes, where: str) -> Mark:
    """Read a mark.

    Raises:
        DataError: It is none.
        StorageError: It names a file that would lie outside of the artifact.
    """
    mark = parse_json(data, where)
    try:
        for record in records_from_json(mark["files"]):
            check_name(record.name)
    except (KeyError, TypeError) as error:
        raise DataError(f"{where} lists no files; delete it and run again.") from error
    if not _tells_rows(mark):
        raise DataError(
            f"{where} does not tell which rows were used and which were not; delete it and run "
            "again."
        )
    return mark


def _tells_rows(mark: Mark) -> bool:
    """Whether a mark has the counts of rows, and all about each rejected one."""
    counts = (mark.get("rows"), mark.get("rejected"))
    rejections = mark.get("rejections")
    return (
        all(type(count) is int and count >= 0 for count in counts)
        and isinstance(rejections, list)
        and all(isinstance(row, dict) and _types(row) == _REJECTION for row in rejections)
    )


def _types(content: Mapping[str, Any]) -> dict[str, type]:
    """Return the type of each value."""
    return {name: type(value) for name, value in content.items()}
