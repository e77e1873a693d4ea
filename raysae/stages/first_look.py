"""A few rows of a corpus before a job reads all of it: too many bad ones show within seconds.

Otherwise a wrong column would be found out when the SAE is trained and the corpus is scored.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from raysae.corpora import Corpus
from raysae.errors import DataError
from raysae.sample import Rejection
from raysae.stages._careful import careful_look
from raysae.stages._spread import spread_runs
from raysae.stages._trials import LIMITS

ROWS = 64
RUN_ROWS = 4
"""Rows that are looked at, and how many of them are consecutive."""

_DOUBT = 4.0
"""Standard errors by which the share of the rows looked at must be above the limit to end a job."""

_LIMITS = replace(LIMITS, row_s=10.0)


def look_first(setting: str, corpus: Corpus, max_fraction: float) -> None:
    """Read a few rows in a child process, and stop if far too many of them cannot be used.

    With n rows looked at and a limit m that is more than m·n + 4·√(m(1 − m)n) of them; if they are
    just more than m·n, the job is warned and goes on. What only the model finds out (`too-long`) is
    not looked for.

    Args:
        setting: The field of a job's settings that names the corpus.
        corpus: The corpus.
        max_fraction: The share of rejected rows that is allowed.

    Raises:
        DataError: Too many rows cannot be used, or none can be read.
        RaysaeError: No child process could be started.
    """
    runs = spread_runs(corpus.snapshot, ROWS, RUN_ROWS)
    rows = list(careful_look(corpus, runs, _LIMITS))
    reasons = Counter(row.reason for row in rows if isinstance(row, Rejection))
    expected = max_fraction * len(rows)
    if reasons.total() <= expected:
        return
    found = too_many(reasons, len(rows), max_fraction)
    if reasons.total() > expected + _DOUBT * math.sqrt(expected * (1 - max_fraction)):
        raise DataError(
            f"{setting}: {found}; jobs/inspect.py shows them, mend the corpus or raise the limit."
        )
    sys.stdout.write(f"{setting}: warning: {found}; the job may stop for that\n")


def too_many(reasons: Mapping[str, int], rows: int, max_fraction: float) -> str:
    """Say that more rows than are allowed cannot be used.

    Args:
        reasons: Rejected rows by reason.
        rows: All rows that were looked at.
        max_fraction: The share of rejected rows that is allowed.
    """
    listed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
    return (
        f"{sum(reasons.values()):,} of {rows:,} rows looked at cannot be used ({listed}), more "
        f"than run.max_rejected_fraction = {max_fraction:.0%} allows"
    )
