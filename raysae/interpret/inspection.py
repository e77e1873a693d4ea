"""What an inspection of a corpus found: frozen dataclasses that a stage fills.

Nothing here grows with the corpus. `corpus_page` draws it, `corpus_text` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysae.interpret.content import RejectionGroup
from raysae.interpret.measures import Histogram
from raysae.interpret.statistics import histogram

BINS = 32
TAIL = 0.99
"""Share of the values that a histogram shows; the few longest would squeeze the others into one
bin."""


@dataclass(frozen=True)
class Column:
    """A column of the corpus.

    Attributes:
        name: Its name.
        type: Its Arrow type.
        holds: What it is read as, e.g. `question`; empty if it is only kept.
    """

    name: str
    type: str
    holds: str


@dataclass(frozen=True)
class Spread:
    """How a number is spread over the usable rows that have it.

    Attributes:
        name: What was counted, with its unit.
        rows: Rows that have it.
        quantiles: Minimum, 5 %, median, 95 % and maximum.
        histogram: Values up to the 99 % quantile.
    """

    name: str
    rows: int
    quantiles: tuple[float, float, float, float, float]
    histogram: Histogram

    @property
    def is_constant(self) -> bool:
        """Whether all rows have the same value."""
        return self.quantiles[0] == self.quantiles[-1]

    @property
    def cut_off(self) -> int:
        """Rows whose values are above those of the histogram."""
        return self.rows - sum(self.histogram.kept)


@dataclass(frozen=True)
class Example:
    """One usable row.

    Attributes:
        sample_id: The source's id.
        ordinal: Row in the corpus.
        images: Encoded bytes.
        question: The conversation up to the answer.
        chosen: The better answer; empty if there is none.
        rejected: The worse one.
    """

    sample_id: str
    ordinal: int
    images: tuple[bytes, ...]
    question: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Part:
    """One of a data set's configurations.

    Attributes:
        name: Its name.
        rows: Rows as published.
        use: How it is scored, or why it is not.
        inspected: Whether it is the one that was inspected.
    """

    name: str
    rows: int
    use: str
    inspected: bool


@dataclass(frozen=True)
class Inspection:
    """A corpus as it is before anything is computed on it.

    Attributes:
        corpus: Its name.
        place: Where its files are.
        files: How many are used.
        left_out: How many more there are.
        bytes: Of the used files.
        rows: Rows in them.
        looked_at: Rows that were read.
        columns: Its schema.
        parts: Configurations of the data set, where it has several.
        model: Whose tokens were counted; empty if none was named.
        spreads: Lengths and sizes.
        formats: Image format and mode → images, the most frequent first.
        rejections: Rows that cannot be used, by reason.
        examples: A few usable rows.
    """

    corpus: str
    place: str
    files: int
    left_out: int
    bytes: int
    rows: int
    looked_at: int
    columns: tuple[Column, ...]
    parts: tuple[Part, ...]
    model: str
    spreads: tuple[Spread, ...]
    formats: tuple[tuple[str, int], ...]
    rejections: tuple[RejectionGroup, ...]
    examples: tuple[Example, ...]

    @property
    def rejected(self) -> int:
        """Rows that cannot be used, of those looked at."""
        return sum(group.rows for group in self.rejections)

    @property
    def usable_share(self) -> float:
        """Share [0, 1] of the rows looked at that can be used; NaN if there are none."""
        return 1 - self.rejected / self.looked_at if self.looked_at else float("nan")


def spread(name: str, values: npt.ArrayLike) -> Spread | None:
    """Describe how values are spread; None if there are none.

    Args:
        name: What they are.
        values: One for each row that has it.
    """
    values_n = np.asarray(values, np.float64)
    if not len(values_n):
        return None
    low, five, median, most, high = np.quantile(values_n, [0, 0.05, 0.5, 0.95, 1]).tolist()
    shown = values_n[values_n <= np.quantile(values_n, TAIL)]
    counts = histogram(shown, np.ones(len(shown), np.bool_), BINS)
    return Spread(name, len(values_n), (low, five, median, most, high), counts)
