"""Which samples are kept, given their scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysae.errors import DataError
from raysae.scoring.settings import SelectionSettings

KEPT_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
    ]
)
"""One row per kept sample; `rank` counts from 0, best first."""


@dataclass(frozen=True)
class Selection:
    """What was kept and what was not.

    Attributes:
        kept: Table in `KEPT_SCHEMA`, by ordinal.
        rows: Scored rows given.
        duplicates: Rows left out because an earlier ordinal has the same sample id.
        unscored: Rows left out because their score is NaN or missing.
        cutoff: The last kept score.
    """

    kept: pa.Table
    rows: int
    duplicates: int
    unscored: int
    cutoff: float


def first_of_each_id(scores: pa.Table) -> pa.Table:
    """Keep, of the rows with one sample id, that with the lowest ordinal; sorted by id."""
    by_id = scores.sort_by(
        [("sample_id", "ascending"), ("ordinal", "ascending"), ("score", "ascending")]
    )
    if len(by_id) < 2:
        return by_id
    ids = by_id["sample_id"].combine_chunks()
    first = pc.not_equal(ids[1:], ids[:-1])
    return by_id.filter(pa.concat_arrays([pa.array([True]), first]))


def select(scores: pa.Table, settings: SelectionSettings) -> Selection:
    """Keep the samples that the settings ask for.

    Duplicates go first, then rows without a score, then the rule applies. Equal scores are ordered
    by sample id (its UTF-8 bytes), so that neither sharding nor row order changes the outcome.

    Args:
        scores: Columns `sample_id`, `ordinal` and `score` of one scorer, in any order.
        settings: The rule; its `scorer` is the caller's to apply.

    Raises:
        DataError: A column is missing, there is no row with a score, or none within the limits.
    """
    missing = {"sample_id", "ordinal", "score"} - set(scores.column_names)
    if missing:
        raise DataError(f"The scores lack the column(s) {', '.join(sorted(missing))}.")
    unique = first_of_each_id(scores.select(["sample_id", "ordinal", "score"]))
    usable = pc.fill_null(pc.invert(pc.is_nan(unique["score"])), False)
    scored = unique.filter(usable)
    if len(scored) == 0:
        raise DataError("There is no scored sample to select from; look at the rejected rows.")
    order = "descending" if settings.order == "highest" else "ascending"
    ranked = _within_limits(scored, settings).sort_by(
        [("score", order), ("sample_id", "ascending")]
    )
    if len(ranked) == 0:
        raise DataError(_nothing_within(scored, settings))
    kept = ranked.slice(0, _how_many(len(ranked), settings))
    cutoff = kept["score"][-1].as_py()
    kept = kept.append_column("rank", pa.array(np.arange(len(kept), dtype=np.int64)))
    return Selection(
        kept=kept.cast(KEPT_SCHEMA).sort_by("ordinal"),
        rows=len(scores),
        duplicates=len(scores) - len(unique),
        unscored=len(unique) - len(scored),
        cutoff=cutoff,
    )


def _within_limits(scored: pa.Table, settings: SelectionSettings) -> pa.Table:
    if settings.min_score is not None:
        scored = scored.filter(pc.greater_equal(scored["score"], settings.min_score))
    if settings.max_score is not None:
        scored = scored.filter(pc.less_equal(scored["score"], settings.max_score))
    return scored


def _nothing_within(scored: pa.Table, settings: SelectionSettings) -> str:
    """Say which limits no score meets, and what scores there are."""
    limits = {"select.min_score": settings.min_score, "select.max_score": settings.max_score}
    given = " and ".join(
        f"{name} = {value:g}" for name, value in limits.items() if value is not None
    )
    span = pc.min_max(scored["score"]).as_py()
    return (
        f"select: no sample meets {given}: the {len(scored):,} scores by {settings.scorer} lie "
        f"between {span['min']:g} and {span['max']:g}; change the limits."
    )


def _how_many(available: int, settings: SelectionSettings) -> int:
    """Return how many of the ranked rows are kept."""
    if settings.n is not None:
        return min(settings.n, available)
    if settings.min_score is not None or settings.max_score is not None:
        return available
    return max(1, math.floor(settings.fraction * available + 0.5))
