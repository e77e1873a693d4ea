"""Row groups, scores and storages for the tests of the score table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysae.artifacts import SCORE_SCHEMA, RowGroup, ScoreTable
from raysae.storage import Directory
from raysae.storage.local import LocalBackend
from raysae.storage.posix import Posix

NONE_REJECTED: dict[str, Any] = {"rejected": 0, "rejections": []}
"""What a mark tells beside its rows where all of them were used."""

FIRST = RowGroup("corpus", "l0", "lineage", 0, 4)


def part(start: int, stop: int, **changes: Any) -> RowGroup:
    """Return other rows of `FIRST`'s file."""
    return replace(FIRST, start=start, stop=stop, **changes)


def rows(group: RowGroup, score: float = 0.5) -> pa.Table:
    """One score for each row of a group."""
    described = [
        {
            "sample_id": f"{group.lineage}-{row}",
            "ordinal": row,
            "score": score,
            "text_tokens": 3,
            "image_tokens": 4,
            "features": [1, 2],
            "contributions": [0.5, 0.25],
        }
        for row in range(group.start, group.stop)
    ]
    return pa.Table.from_pylist(described, SCORE_SCHEMA)


def add(table: ScoreTable, *groups: RowGroup, score: float = 0.5, series: str = "s") -> int:
    """Write row groups and publish them as a series."""
    for group in groups:
        table.write(group, rows(group, score), NONE_REJECTED)
    return table.publish(groups, series)


def live_groups(table: ScoreTable) -> list[RowGroup]:
    return [live.group for live in table.live()]


class Unsynced(Posix):
    """A file system whose tests are quick because nothing survives a loss of power."""

    def sync_file(self, path: Path) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        pass


class Hooked(LocalBackend):
    """A directory where something happens before a file is created.

    Attributes:
        before_create: Called with the key.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, Unsynced())
        self.before_create: Callable[[str], None] = lambda key: None

    def create(self, key: str, data: bytes) -> bool:
        self.before_create(key)
        return super().create(key, data)


def unsynced(root: Path) -> Directory:
    return Directory(LocalBackend(root, Unsynced()))


def path_of(table: ScoreTable, name: str) -> Path:
    """Return where a file of a table on this machine lies."""
    return Path(table.directory.describe(name))


def data_file(table: ScoreTable, group: RowGroup) -> Path:
    mark = table.mark(group)
    assert mark is not None
    return path_of(table, mark["files"][0]["name"])


def loose_files(table: ScoreTable, manifests: int = 10) -> set[str]:
    """Names of the data files and marks that none of the latest manifests lists."""
    listed = {
        name for number in table.manifests.numbers()[-manifests:] for name in table.files_of(number)
    }
    there = {entry.key for entry in table.directory.entries()}
    return {name for name in there - listed if name.startswith(("data/", "marks/"))}
