"""Row groups: the unit of the score table, and how one is named.

A row group holds the scores of one row range of one file by one scorer. Its *lineage* is a hash of
everything else that determines it (file content, model, SAE, weights, scorer, version); its key is
a hash of lineage and range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import pyarrow as pa

from raysae.artifacts.files import CHECKSUM
from raysae.artifacts.ids import content_id

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

DATA = "data"
MARKS = "marks"
"""Directories of the table: data files, and the marks that say which of them are complete."""

_QUOTED_BYTES = 200
_KEPT_LETTERS = 16


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

    def __post_init__(self) -> None:
        if not (self.corpus and self.scorer and self.lineage):
            raise ValueError(f"a row group's names must not be empty, got {self}")
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a row group needs rows: 0 <= start < stop, got {self}")

    @cached_property
    def key(self) -> str:
        """The row group's name: 24 hex digits over all that identifies it."""
        return content_id([self.corpus, self.scorer, self.lineage, self.start, self.stop])

    @property
    def file_pattern(self) -> str:
        """Name of its data file in the table, with `{checksum}` where its content's will stand."""
        partition = f"corpus={hive_value(self.corpus)}/scorer={hive_value(self.scorer)}"
        return f"{DATA}/{partition}/{self.key}-{CHECKSUM}.parquet"

    @property
    def shard(self) -> str:
        """What `marks.mark_name` makes the name of its mark of."""
        return f"{MARKS}/{self.key}"


def hive_value(name: str) -> str:
    """Return a partition's value: percent-quoted UTF-8, which Hive readers decode.

    A directory's name holds 255 bytes at most; of a name that would not fit, the first letters are
    kept, and a hash of the whole follows.
    """
    quoted = quote(name, safe="")
    if len(quoted) <= _QUOTED_BYTES:
        return quoted
    return f"{quote(name[:_KEPT_LETTERS], safe='')}~{content_id(name)}"


def key_of_file(path: str) -> str:
    """Return the key that a data file's name begins with."""
    return path.rpartition("/")[2].partition("-")[0]
