"""What a stage hands back, and the sums over its shards' marks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raysae.artifacts import Artifact, ShardSpec
from raysae.artifacts.marks import read_mark

COUNTED = ("rows", "rejected", "tokens", "text_tokens", "image_tokens", "special_tokens")
"""Counts that a shard's mark may hold; they are summed into the artifact's metadata."""

LISTED_PROBLEMS = 5
"""Lost shards that are named one by one."""


def listed_reasons(reasons: Mapping[str, int]) -> str:
    """Return rejected rows by reason as a message has them: `no-image 3, too-long 1,200`."""
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))


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


@dataclass
class ShardTotals:
    """What the marks of many shards say together; the marks themselves are not kept.

    Attributes:
        counts: Sums of `COUNTED`.
        reasons: Rejected rows by reason.
    """

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, mark: Mapping[str, Any]) -> None:
        """Add a shard's mark."""
        self.counts.update(counts_of(mark))
        self.reasons.update(row["reason"] for row in mark["rejections"])

    @classmethod
    def of(cls, marks: Iterable[Mapping[str, Any]]) -> ShardTotals:
        """Add up marks."""
        totals = cls()
        for mark in marks:
            totals.add(mark)
        return totals

    def to_json(self) -> dict[str, Any]:
        """Return what an artifact's metadata say of its rows."""
        return {**counts_of(self.counts), "rejections": dict(sorted(self.reasons.items()))}


def counts_of(mark: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts that a mark tells."""
    return {name: int(mark.get(name, 0)) for name in COUNTED}


def finished_counts(artifact: Artifact, shard: ShardSpec) -> dict[str, int] | None:
    """Return the counts of a shard that is complete, else None."""
    mark = read_mark(artifact.directory, shard.name)
    return None if mark is None else counts_of(mark)


def missing_shards(stage: str, artifact: Artifact, shards: Sequence[ShardSpec]) -> list[ShardSpec]:
    """Return the shards that are still to be done, and say what was done or was lost.

    Args:
        stage: Its name, for the lines.
        artifact: What the shards are of.
        shards: All of them, in order.
    """
    missing, problems = artifact.missing(shards)
    done = len(shards) - len(missing)
    if done:
        sys.stdout.write(f"{stage}: {done} of {len(shards)} shards are done\n")
    report_lost(stage, problems)
    return missing


def report_lost(stage: str, problems: Sequence[str]) -> None:
    """Say which shards were complete once, and are done again because files of theirs are gone."""
    for problem in problems[:LISTED_PROBLEMS]:
        sys.stdout.write(f"{stage}: warning: {problem}; the shard is done again\n")
    if len(problems) > LISTED_PROBLEMS:
        more = len(problems) - LISTED_PROBLEMS
        sys.stdout.write(f"{stage}: warning: and {more:,} shards more\n")
    sys.stdout.flush()
