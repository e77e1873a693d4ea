"""What a corpus holds at one moment: its Parquet files by content, and how rows are numbered."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts import file_sha256
from raysae.errors import DataError, SettingsError

SAMPLE_ID_FINGERPRINT_DIGITS = 12
"""Hex digits of a file's fingerprint in a sample id: 48 bits, enough for any number of files."""


@dataclass(frozen=True)
class CorpusFile:
    """One Parquet file of a corpus.

    Attributes:
        path: Where it lies on this machine; no part of the content.
        name: Path below the corpus directory, with forward slashes.
        size: Bytes.
        fingerprint: SHA-256 of the bytes, hex.
        rows: Rows that are used: all of them, unless `max_rows` cut the corpus here.
    """

    path: Path
    name: str
    size: int
    fingerprint: str
    rows: int


@dataclass(frozen=True)
class CorpusSnapshot:
    """The files of a corpus, sorted by name, and the numbering of their rows.

    An *ordinal* is a row's number in the whole snapshot: the rows of the files, one file after
    another.

    Attributes:
        name: The corpus' name in the settings.
        files: The Parquet files; nothing else in the directory counts.
    """

    name: str
    files: tuple[CorpusFile, ...]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(file.rows for file in self.files))

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return self._ends[-1] if self.files else 0

    @property
    def file_rows(self) -> list[int]:
        """Rows of each file, as `raysae.artifacts.plan_shards` takes them."""
        return [file.rows for file in self.files]

    def first_ordinal(self, file_index: int) -> int:
        """Return the ordinal of a file's first row."""
        return self._ends[file_index] - self.files[file_index].rows

    def locate(self, ordinal: int) -> tuple[int, int]:
        """Return (file index, row in that file) of an ordinal."""
        if not 0 <= ordinal < self.rows:
            raise IndexError(f"ordinal {ordinal} is outside of {self.name}'s {self.rows} rows")
        file_index = bisect_right(self._ends, ordinal)
        return file_index, ordinal - self.first_ordinal(file_index)

    def sample_id(self, ordinal: int) -> str:
        """Return `<first 12 digits of the file's fingerprint>-<row in the file>`.

        It follows the content: the same row keeps its id when files are added, moved or renamed.
        """
        file_index, row = self.locate(ordinal)
        return f"{self.files[file_index].fingerprint[:SAMPLE_ID_FINGERPRINT_DIGITS]}-{row}"

    def to_json(self) -> dict[str, Any]:
        """Return what is content, for ids and metadata: no local paths."""
        return {
            "name": self.name,
            "files": [
                {
                    "name": file.name,
                    "size": file.size,
                    "fingerprint": file.fingerprint,
                    "rows": file.rows,
                }
                for file in self.files
            ],
        }


def find_parquet_files(path: Path, setting: str) -> list[tuple[str, Path]]:
    """Return (name, path) of the Parquet files at or below `path`, sorted by name.

    Names that begin with a dot or an underscore are other programs' unfinished work and are left
    out.

    Args:
        path: A Parquet file, or a directory.
        setting: What names it, for messages.

    Raises:
        SettingsError: There is nothing at `path`.
        DataError: There is no Parquet file there.
    """
    if path.is_file():
        return [(path.name, path)]
    if not path.is_dir():
        raise SettingsError(
            f"{setting}: {path} does not exist; name a Parquet file or its directory."
        )
    found = [
        (file.relative_to(path).as_posix(), file)
        for file in path.rglob("*.parquet")
        if file.is_file() and not _is_hidden(file.relative_to(path))
    ]
    if not found:
        raise DataError(f"{path} holds no file named *.parquet; name the corpus' directory.")
    return sorted(found)


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith((".", "_")) for part in relative.parts)


def take_snapshot(
    name: str, files: Iterable[tuple[str, Path]], max_rows: int
) -> tuple[CorpusSnapshot, list[pa.Schema]]:
    """Fingerprint files, in order, until `max_rows` are found (0: all), and read their schemas.

    It reads every byte once, so it runs once per job, on the driver.

    Raises:
        DataError: A file is no Parquet file, or all files together have no row.
    """
    taken: list[CorpusFile] = []
    schemas: list[pa.Schema] = []
    left = max_rows
    for file_name, path in files:
        rows, schema = _read_footer(path)
        used = min(rows, left) if max_rows else rows
        left -= used
        taken.append(CorpusFile(path, file_name, path.stat().st_size, file_sha256(path), used))
        schemas.append(schema)
        if max_rows and left == 0:
            break
    snapshot = CorpusSnapshot(name, tuple(taken))
    if snapshot.rows == 0:
        names = ", ".join(file.name for file in snapshot.files)
        raise DataError(f"The corpus {name} has no rows: {names} are empty.")
    return snapshot, schemas


def _read_footer(path: Path) -> tuple[int, pa.Schema]:
    try:
        with pq.ParquetFile(path) as file:
            return file.metadata.num_rows, file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} cannot be read as Parquet ({reason}); replace or remove it."
        ) from error
