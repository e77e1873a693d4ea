"""What a corpus holds at one moment: its files by content, and how rows are numbered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from raysae.corpora.files import CorpusFiles
from raysae.corpora.fingerprints import id_digits


@dataclass(frozen=True)
class CorpusSnapshot:
    """The files of a corpus, sorted by name, and the numbering of their rows.

    An *ordinal* is a row's number in the whole snapshot: the rows of the files, one file after
    another.

    Attributes:
        name: The corpus' name in the settings.
        files: The corpus files; nothing else in the directory counts.
    """

    name: str
    files: CorpusFiles

    def __reduce__(self) -> tuple[type[CorpusSnapshot], tuple[str, CorpusFiles]]:
        """Leave out what is cached: it is larger than the rest."""
        return CorpusSnapshot, (self.name, self.files)

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.files.rows_n)

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return int(self._ends[-1]) if len(self.files) else 0

    @property
    def file_rows(self) -> list[int]:
        """Rows of each file, as `raysae.artifacts.ShardPlan` takes them."""
        rows: list[int] = self.files.rows_n.tolist()
        return rows

    def first_ordinal(self, file_index: int) -> int:
        """Return the ordinal of a file's first row."""
        return int(self._ends[file_index] - self.files.rows_n[file_index])

    def locate(self, ordinal: int) -> tuple[int, int]:
        """Return (file index, row in that file) of an ordinal."""
        if not 0 <= ordinal < self.rows:
            raise IndexError(f"ordinal {ordinal} is outside of {self.name}'s {self.rows} rows")
        file_index = int(np.searchsorted(self._ends, ordinal, side="right"))
        return file_index, ordinal - self.first_ordinal(file_index)

    def sample_id(self, ordinal: int) -> str:
        """Return `<12 digits of the file's fingerprint>-<row in the file>`.

        It follows the content: the same row keeps its id when files are added, moved or renamed.
        """
        file_index, row = self.locate(ordinal)
        return f"{id_digits(self.files.fingerprint(file_index))}-{row}"

    def to_json(self) -> dict[str, Any]:
        """Return what is content, for ids and metadata: no local paths."""
        return {"name": self.name, "files": self.files.to_json()}
