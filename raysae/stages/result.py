"""What a stage hands back, and the sums over its shards' marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysae.artifacts import Artifact, ShardSpec
from raysae.errors import DataError
from raysae.sample import count_reasons

COUNTED = ("rows", "rejected", "tokens", "text_tokens", "image_tokens", "special_tokens")
"""Counts that a shard's mark may hold; they are summed into the artifact's metadata."""


@dataclass(frozen=True)
class StageResult:
    """What a stage made.

    Attributes:
        rows: Rows in what it made.
        rejected: Corpus rows that could not be used.
        resumed: Whether finished work of an earlier run was used.
    """

    rows: int
    rejected: int
    resumed: bool


def finished_marks(artifact: Artifact, shards: Sequence[ShardSpec]) -> list[dict[str, Any]]:
    """Return the mark of every shard.

    Raises:
        DataError: A shard has none, although its stage has ended.
    """
    marks = []
    for shard in shards:
        mark = artifact.shard_mark(shard.name)
        if mark is None:
            raise DataError(
                f"{artifact.directory}: {shard.name} is not complete; run the job again."
            )
        marks.append(mark)
    return marks


def sum_counts(marks: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Add up the counts of marks."""
    return {name: sum(int(mark.get(name, 0)) for mark in marks) for name in COUNTED}


def rejection_reasons(marks: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count rejected rows by reason."""
    return count_reasons(row["reason"] for mark in marks for row in mark["rejections"])
