"""The score table: a growing set of row groups, and manifests that say which of them are live.

Layout under `<storage>/scores/`:

    data/corpus=<name>/scorer=<name>/<key>-<checksum>.parquet   one row per sample: `SCORE_SCHEMA`
    marks/<key>.done.json                                       the row group is complete
    manifests/<number>.parquet                                  immutable; the highest number counts
    attempts/                                                   what is being scored, see `Attempts`

What a run publishes is a series, which takes the place of what it published before: a reader who
opens the latest manifest and takes one series counts no row twice; one who knows its row groups
reads them by their marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysae.artifacts.attempts import ATTEMPTS, Attempts
from raysae.artifacts.files import Publication
from raysae.artifacts.manifest_file import LiveGroup, Manifest, as_rows
from raysae.artifacts.manifests import Manifests
from raysae.artifacts.marks import Mark, read_mark, write_mark
from raysae.artifacts.row_groups import MARKS, SCORE_SCHEMA, RowGroup
from raysae.artifacts.score_files import (
    MANY,
    GroupState,
    MissingGroups,
    find_files,
    is_mark_of,
    read_files,
    read_group_marks,
)
from raysae.storage import Directory

Item = TypeVar("Item")

SCORES = "scores"
MANIFESTS = "manifests"
"""Directories: the table's in the storage, and the manifests' in the table."""

_MARKS_AT_ONCE = 1024
_FILES_AT_ONCE = 64


class ScoreTable:
    """The score table of one storage. It pickles, so it can be sent to actors.

    Args:
        root: The storage.
    """

    def __init__(self, root: Directory) -> None:
        self.directory = root / SCORES
        self.manifests = Manifests(self.directory / MANIFESTS)

    # -- writing

    def write(self, group: RowGroup, scores: pa.Table, extra: Mapping[str, Any]) -> Mark:
        """Publish a row group's data file, then its mark, unless another run has done so already.

        Args:
            group: Which rows by which scorer.
            scores: One row per usable sample, in `SCORE_SCHEMA`.
            extra: What else the mark tells: rejected rows, counts.

        Returns:
            The mark that counts: `extra`, the row group's fields, `rows`, and `files` with name,
            size and sha256 of its one file.
        """
        publication = Publication(self.directory)
        with publication.writing(group.file_pattern) as local:
            # In one piece, so that the same scores make the same bytes however they came.
            table = scores.cast(SCORE_SCHEMA).combine_chunks()
            pq.write_table(table, local, compression="zstd")
        content = {**extra, **asdict(group), "rows": scores.num_rows}
        its = partial(is_mark_of, group)
        return write_mark(self.directory, group.shard, publication.records, content, its)

    def publish(self, groups: Iterable[RowGroup], series: str) -> int:
        """Make row groups live as one series, in place of what the series was before.

        Two runs at once each get a manifest of their own; the later one starts from the earlier.

        Args:
            groups: All of the series: every row of a corpus once for each scorer.
            series: Its name: what determines the scores of all of them.

        Returns:
            The number of the manifest that lists them; no new one is written if nothing changes.

        Raises:
            DataError: A row group is not complete, or two of them hold the same rows.
        """
        parts = _batched(self._complete(groups), _MARKS_AT_ONCE)
        tables = [as_rows(part) for part in parts]
        (self.directory / MARKS).settle()
        return self.manifests.publish(pa.concat_tables([as_rows([]), *tables]), series)

    def attempts(self, role: str) -> Attempts:
        """Return the attempts at scoring shards by one kind of process."""
        return Attempts(self.directory / ATTEMPTS, role)

    # -- what is there

    def mark(self, group: RowGroup) -> Mark | None:
        """Return a row group's mark if it is complete, else None."""
        return read_mark(self.directory, group.shard)

    def marks(self, groups: Iterable[RowGroup]) -> Iterator[Mark]:
        """Yield the mark of every row group, in order, in memory that does not grow with them.

        One request for each; the data files are not looked at, which `missing`, `publish` and
        `read` do.

        Raises:
            DataError: A row group has no mark, or a damaged one.
        """
        for part in _batched(groups, _MARKS_AT_ONCE):
            yield from read_group_marks(self.directory, part)

    def missing(self, groups: Iterable[RowGroup]) -> MissingGroups:
        """Return the row groups that are still to be scored, and what became of lost ones."""
        wanted = list(groups)
        lacking = {s.group: s.problem for s in self._states(wanted) if s.live is None}
        found = MissingGroups([group for group in wanted if group in lacking], [])
        for group in found.groups:
            if lacking[group]:
                found.problems.append(f"{group.scorer}: {lacking[group]}")
        return found

    def are_live(self, groups: Iterable[RowGroup], series: str) -> bool:
        """Whether the latest manifest lists just these as a series, and their files are there."""
        wanted = set(groups)
        listed = self.latest().table()
        mine = listed.filter(pc.equal(listed["series"], series))
        if len(mine) != len(wanted):
            return False
        return all(state.listed for state in find_files(self.directory, wanted, mine))

    # -- reading

    def latest(self) -> Manifest:
        """Open the latest manifest; an empty one of number 0 if nothing was published yet.

        Raises:
            DataError: It is damaged, or a newer raysae wrote it.
        """
        return self.manifests.latest()

    def live(self) -> Iterator[LiveGroup]:
        """Yield the latest manifest's rows, sorted by corpus, scorer, series, lineage and start."""
        yield from self.latest()

    def live_files(self, corpus: str | None = None, scorer: str | None = None) -> list[str]:
        """Return the paths or URIs of the newest series' data files, for any reader of Parquet.

        Args:
            corpus: Only this corpus'; each one's newest series if None.
            scorer: Only this scorer's; all if None.
        """
        latest = self.latest()
        newest = latest.newest_series()
        return [
            self.directory.describe(live.path)
            for live in latest
            if live.series == newest[live.corpus]
            and corpus in {None, live.corpus}
            and scorer in {None, live.scorer}
        ]

    def read(self, groups: Iterable[RowGroup], columns: Sequence[str] | None = None) -> pa.Table:
        """Read some complete row groups, whether or not the latest manifest lists them.

        Who knows which row groups belong together needs no manifest: another job that cuts the same
        rows otherwise may replace them there at any moment, but never changes their files.

        Args:
            groups: The row groups, in the order of the result.
            columns: Only these of `SCORE_SCHEMA`; all of them if None.

        Raises:
            DataError: One of them is not complete, or its file is damaged.
        """
        names = SCORE_SCHEMA.names if columns is None else list(columns)
        schema = pa.schema([SCORE_SCHEMA.field(name) for name in names])
        parts = _batched(self.tables(groups, names), _FILES_AT_ONCE)
        tables = [pa.concat_tables(part).combine_chunks() for part in parts]
        return pa.concat_tables([schema.empty_table(), *tables])

    def tables(
        self, groups: Iterable[RowGroup], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield some complete row groups one by one, in order, as `read` joins them."""
        names = SCORE_SCHEMA.names if columns is None else list(columns)
        wanted = list(groups)
        files = {live.group: live for live in self._complete(wanted)}
        for part in _batched((files[group] for group in wanted), _FILES_AT_ONCE):
            yield from read_files(self.directory, part, names)

    # -- what may be removed

    def files_of(self, number: int) -> Iterator[str]:
        """Yield the data files and marks that a manifest lists, by their names in the table.

        Raises:
            FileNotFoundError: There is no manifest of this number.
            DataError: It cannot be read.
        """
        for live in self.manifests.read(number):
            yield live.path
            yield live.mark

    # -- inside

    def _states(self, groups: Iterable[RowGroup]) -> Iterator[GroupState]:
        """Yield what is known of row groups, once each, in any order."""
        wanted = set(groups)
        listed = self.latest().table() if len(wanted) >= MANY else None
        return find_files(self.directory, wanted, listed)

    def _complete(self, groups: Iterable[RowGroup]) -> Iterator[LiveGroup]:
        """Yield the files of row groups, once each, in any order.

        Raises:
            DataError: One of them is not complete.
        """
        for state in self._states(groups):
            if state.live is None:
                raise state.incomplete(self.directory)
            yield state.live


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items, the last one maybe shorter."""
    rest = iter(items)
    for first in rest:
        yield list(chain([first], islice(rest, size - 1)))
