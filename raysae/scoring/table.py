"""The score table: a growing set of row groups, and manifests that say which of them are live.

Layout under `<storage>/scores/`:

    data/corpus=<name>/scorer=<name>/<key>.parquet   one row per sample, see `SCORE_SCHEMA`
    marks/<key>.done.json                            the row group is complete
    manifests/<number>.json                          immutable; the highest number counts

A row group holds the scores of one row range of one file by one scorer. Its *lineage* is a hash of
everything else that determines it (file content, model, SAE, weights, scorer, version), its key a
hash of lineage and range. Publishing a row group replaces those of its lineage that overlap it, so
that a reader who opens the latest manifest counts no row twice; one who knows its row groups reads
them by their marks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts import content_id, file_sha256, read_json
from raysae.errors import DataError
from raysae.storage import put_file, put_json, temporary_sibling

SCORE_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("text_tokens", pa.int32(), nullable=False),
        pa.field("image_tokens", pa.int32(), nullable=False),
        pa.field("features", pa.list_(pa.int32()), nullable=False),
        pa.field("contributions", pa.list_(pa.float32()), nullable=False),
    ]
)
"""Columns of a row group; `features` decided the score most, with what each contributed to it."""


@dataclass(frozen=True)
class RowGroup:
    """Identity of one row group.

    Attributes:
        corpus: Name of the corpus.
        scorer: Name of the scorer.
        lineage: Hash of file content, model, SAE, weights, scorer and versions.
        start: First row in the file.
        stop: One past the last row.
    """

    corpus: str
    scorer: str
    lineage: str
    start: int
    stop: int

    @property
    def key(self) -> str:
        """The row group's name: a hash of lineage and row range."""
        return content_id([self.lineage, self.start, self.stop])

    @property
    def path(self) -> str:
        """Its data file, relative to the table."""
        return f"data/corpus={self.corpus}/scorer={self.scorer}/{self.key}.parquet"

    def overlaps(self, entry: Mapping[str, Any]) -> bool:
        """Whether a manifest's entry holds rows of the same lineage that this one holds too."""
        same = bool(entry["lineage"] == self.lineage)
        return same and bool(entry["start"] < self.stop and self.start < entry["stop"])


class ScoreTable:
    """The score table of one storage."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "scores"

    def mark(self, group: RowGroup) -> dict[str, Any] | None:
        """Return a complete row group's mark, else None."""
        path = self._mark_path(group)
        if not path.exists():
            return None
        mark = read_json(path)
        data = self.directory / group.path
        return mark if data.exists() and data.stat().st_size == mark["size"] else None

    def write(self, group: RowGroup, scores: pa.Table, extra: Mapping[str, Any]) -> None:
        """Publish a row group's data file, then its mark.

        Args:
            group: Which rows by which scorer.
            scores: One row per usable sample, in `SCORE_SCHEMA`.
            extra: What else the mark tells: rejected rows, counts.
        """
        final = self.directory / group.path
        temporary = temporary_sibling(final)
        pq.write_table(scores.cast(SCORE_SCHEMA), temporary, compression="zstd")
        put_file(temporary, final)
        put_json(
            self._mark_path(group),
            {
                **asdict(group),
                **extra,
                "path": group.path,
                "rows": scores.num_rows,
                "size": final.stat().st_size,
                "sha256": file_sha256(final),
            },
        )

    def publish(self, groups: Iterable[RowGroup]) -> Path:
        """Write a manifest in which `groups` are live beside what was live before.

        Two runs at once each get a number of their own; the later one starts from the earlier.

        Raises:
            DataError: A row group is not complete.
        """
        marks = {}
        for group in groups:
            mark = self.mark(group)
            if mark is None:
                raise DataError(f"{self.directory / group.path} is not complete; score it again.")
            marks[group] = mark
        of_lineage: dict[str, list[RowGroup]] = {}
        for group in marks:
            of_lineage.setdefault(group.lineage, []).append(group)
        while True:
            number, entries = self._latest()
            kept = [
                entry
                for entry in entries
                if not any(g.overlaps(entry) for g in of_lineage.get(entry["lineage"], ()))
            ]
            added = [_entry(mark) for mark in marks.values()]
            live = sorted(kept + added, key=lambda e: (e["corpus"], e["scorer"], e["path"]))
            if live == entries:
                return self._manifest_path(number)
            final = self._manifest_path(number + 1)
            if _create_exclusively(final, {"row_groups": live}):
                return final

    def live(self) -> list[dict[str, Any]]:
        """Return the latest manifest's row groups."""
        return self._latest()[1]

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
        tables = []
        for group in groups:
            path = self.directory / group.path
            if self.mark(group) is None:
                raise DataError(f"{path} is not complete; score the corpus again.")
            try:
                tables.append(pq.read_table(path, columns=names, partitioning=None))
            except (OSError, pa.ArrowException) as error:
                raise DataError(
                    f"{path} cannot be read ({error}); delete it and score again."
                ) from error
        return pa.concat_tables(tables) if tables else SCORE_SCHEMA.empty_table().select(names)

    def _mark_path(self, group: RowGroup) -> Path:
        return self.directory / "marks" / f"{group.key}.done.json"

    def _manifest_path(self, number: int) -> Path:
        return self.directory / "manifests" / f"{number:08d}.json"

    def _latest(self) -> tuple[int, list[dict[str, Any]]]:
        """Return the latest manifest's number (0 if there is none) and entries."""
        numbers = [int(p.stem) for p in (self.directory / "manifests").glob("[0-9]*.json")]
        if not numbers:
            return 0, []
        groups = read_json(self._manifest_path(max(numbers)))["row_groups"]
        return max(numbers), list(groups)


def _entry(mark: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of a row group."""
    names = ("corpus", "scorer", "lineage", "start", "stop", "path", "rows", "size", "sha256")
    return {name: mark[name] for name in names}


def _create_exclusively(final: Path, value: Mapping[str, Any]) -> bool:
    """Publish JSON under a name that must be free; False if another process took it first."""
    temporary = temporary_sibling(final)
    put_json(temporary, value)
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
