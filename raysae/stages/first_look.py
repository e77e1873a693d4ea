"""A few rows of a corpus before a job reads all of it: too many bad ones show within seconds.

Otherwise a wrong column would be found out when the SAE is trained and the corpus is scored.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

from raysae.artifacts import ShardSpec
from raysae.corpora import Corpus
from raysae.errors import DataError
from raysae.sample import Rejection
from raysae.stages._careful import CarefulReader
from raysae.stages._spread import spread_runs
from raysae.stages._trials import LIMITS, TIMEOUT
from raysae.stages.result import listed_reasons

ROWS = 64
RUN_ROWS = 4
"""Rows that are looked at, and how many of them are consecutive."""

_DOUBT = 4.0
"""Standard errors by which the share of the rows looked at must be above the limit to end a job."""

_LIMITS = replace(LIMITS, row_s=10.0)


def first_runs(corpus: Corpus) -> Iterator[ShardSpec]:
    """Yield the rows that are looked at, as runs spread evenly over the corpus."""
    return spread_runs(corpus.snapshot, ROWS, RUN_ROWS)


def look_first(setting: str, corpus: Corpus, max_fraction: float) -> None:
    """Read a few rows in a child process; stop if far too many cannot be used, warn if too many.

    A row that takes long is none of them here: the job may have more patience. What only the model
    finds out (`too-long`) is not looked for.

    Args:
        setting: The field of a job's settings that names the corpus.
        corpus: The corpus.
        max_fraction: The share of rejected rows that is allowed.

    Raises:
        DataError: Far too many rows cannot be used, or none can be read.
        RaysaeError: No child process could be started.
    """
    with CarefulReader(corpus, _LIMITS) as reader:
        rows = [row for run in first_runs(corpus) for row in reader.read(run)]
    reasons = Counter(row.reason for row in rows if isinstance(row, Rejection))
    del reasons[TIMEOUT]
    found = too_many(reasons, len(rows), max_fraction)
    if found is None:
        return
    if is_far_too_many(reasons.total(), len(rows), max_fraction):
        raise DataError(
            f"{setting}: {found}; jobs/inspect.py shows them, mend the corpus or raise the limit."
        )
    sys.stdout.write(f"{setting}: warning: {found}; the job may stop for that\n")


def too_many(reasons: Mapping[str, int], rows: int, max_fraction: float) -> str | None:
    """Say that more rows than are allowed cannot be used; None if there are not.

    Args:
        reasons: Rejected rows by reason.
        rows: All rows that were looked at, at least one.
        max_fraction: The share of rejected rows that is allowed.
    """
    rejected = sum(reasons.values())
    if rejected / rows <= max_fraction:
        return None
    return (
        f"{rejected:,} of {rows:,} rows looked at cannot be used ({listed_reasons(reasons)}), more "
        f"than run.max_rejected_fraction = {max_fraction:g} allows"
    )


def is_far_too_many(rejected: int, rows: int, max_fraction: float) -> bool:
    """Whether chance does not explain so many bad rows in a corpus that is within the limit m.

    That is more than m·n + 4·√(4·m(1 − m)·n) of n rows. Bad rows often lie together, as the
    questions about one lost image do, so that the 4 rows of a run count as one.
    """
    allowed = max_fraction * rows
    return rejected > allowed + _DOUBT * math.sqrt(RUN_ROWS * allowed * (1 - max_fraction))
