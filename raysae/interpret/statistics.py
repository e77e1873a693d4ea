"""Summaries that a report draws, out of whole columns: spreads, correlations, rejections.

s samples, f features.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from raysae.interpret.auc import Z_95, FloatArray, mean_ranks
from raysae.interpret.content import RejectionGroup
from raysae.interpret.measures import Histogram, ScorerSummary, WeightSummary
from raysae.sample import Rejection

DEFAULT_BINS = 40
EXAMPLES_PER_REASON = 20


def spearman(x_s: npt.ArrayLike, y_s: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation: Pearson's r of the mean ranks.

    Ranks rather than values, because scores that are sums grow with tokens in no straight line.

    Args:
        x_s: Finite numbers (s,).
        y_s: Finite numbers (s,).

    Returns:
        −1 to 1; NaN if there are fewer than two rows or either is constant.
    """
    x_ranks, y_ranks = mean_ranks(x_s), mean_ranks(y_s)
    if len(x_ranks) < 2:
        return math.nan
    x_centred, y_centred = x_ranks - x_ranks.mean(), y_ranks - y_ranks.mean()
    scale = math.sqrt(float(x_centred @ x_centred) * float(y_centred @ y_centred))
    return float(x_centred @ y_centred) / scale if scale else math.nan


def share_interval(part: int, whole: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the share part/whole; NaN twice for an empty whole.

    Wilson, E. B. (1927): every p with |p − part/whole| ≤ 1.96 √(p(1−p)/whole).
    """
    if not whole:
        return math.nan, math.nan
    z_squared = Z_95**2
    centre = (part + z_squared / 2) / (whole + z_squared)
    root = math.sqrt(part * (whole - part) / whole + z_squared / 4)
    half = Z_95 * root / (whole + z_squared)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def bin_edges(values_s: FloatArray, bins: int = DEFAULT_BINS) -> FloatArray:
    """Return edges of equal bins over finite values; whole numbers get bins of whole width.

    Counts such as L0 would otherwise fall on bins of one and of two numbers by turns, and the
    histogram would be a comb that means nothing.

    Args:
        values_s: Finite values, at least one.
        bins: At most so many bins.
    """
    low, high = float(values_s.min()), float(values_s.max())
    if bool((values_s == np.round(values_s)).all()):
        width = math.ceil((high - low + 1) / bins)
        count = math.ceil((high - low + 1) / width)
        return low - 0.5 + width * np.arange(count + 1, dtype=np.float64)
    if low == high:
        return np.array([low - 0.5, high + 0.5])
    return np.linspace(low, high, bins + 1, dtype=np.float64)


def histogram(values_s: FloatArray, kept_s: npt.NDArray[np.bool_], bins: int) -> Histogram:
    """Count finite values in equal bins, kept and dropped rows apart; empty for no values."""
    if not len(values_s):
        return Histogram((), (), ())
    edges = bin_edges(values_s, bins)
    kept, _ = np.histogram(values_s[kept_s], edges)
    dropped, _ = np.histogram(values_s[~kept_s], edges)
    return Histogram(tuple(edges.tolist()), tuple(kept.tolist()), tuple(dropped.tolist()))


def summarize_scores(
    scorer: str,
    scores_s: npt.ArrayLike,
    *,
    kept_s: npt.ArrayLike,
    text_tokens_s: npt.ArrayLike,
    image_tokens_s: npt.ArrayLike,
    bins: int = DEFAULT_BINS,
) -> ScorerSummary:
    """Describe one scorer's column.

    Args:
        scorer: Its name.
        scores_s: float (s,); values that are not finite count as missing.
        kept_s: bool (s,), whether the row is in the subset.
        text_tokens_s: int (s,).
        image_tokens_s: int (s,).
        bins: At most so many bins in the histogram.
    """
    scores = np.asarray(scores_s, dtype=np.float64)
    finite = np.isfinite(scores)
    values = scores[finite]
    kept = np.asarray(kept_s, dtype=np.bool_)[finite]
    return ScorerSummary(
        scorer=scorer,
        rows=len(values),
        missing=len(scores) - len(values),
        minimum=float(values.min()) if len(values) else math.nan,
        median=float(np.median(values)) if len(values) else math.nan,
        mean=float(values.mean()) if len(values) else math.nan,
        maximum=float(values.max()) if len(values) else math.nan,
        histogram=histogram(values, kept, bins),
        text_token_correlation=spearman(values, np.asarray(text_tokens_s)[finite]),
        image_token_correlation=spearman(values, np.asarray(image_tokens_s)[finite]),
    )


def summarize_weights(weights_f: npt.ArrayLike, bins: int = DEFAULT_BINS) -> WeightSummary:
    """Describe the cross-modal weights.

    Args:
        weights_f: float (f,), ω of every feature, 0 where a feature has none.
        bins: Bins in the histogram.
    """
    weights = np.asarray(weights_f, dtype=np.float64)
    weighted = weights[weights != 0]
    kept = np.ones(len(weighted), dtype=np.bool_)
    return WeightSummary(
        features=len(weights),
        weighted=len(weighted),
        mean=float(weighted.mean()) if len(weighted) else math.nan,
        histogram=histogram(weighted, kept, bins),
    )


def group_rejections(
    rejections: Iterable[Rejection], examples: int = EXAMPLES_PER_REASON
) -> tuple[RejectionGroup, ...]:
    """Group rejected rows by reason: largest group first, then by name.

    Args:
        rejections: In any order; consumed once, and only the examples are held.
        examples: How many to show per reason, those of the lowest ordinals.
    """
    rows: Counter[str] = Counter()
    shown: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in rejections:
        rows[rejection.reason] += 1
        insort(shown[rejection.reason], rejection, key=lambda row: row.ordinal)
        del shown[rejection.reason][examples:]
    return tuple(
        RejectionGroup(reason, count, tuple(shown[reason]))
        for reason, count in sorted(rows.items(), key=lambda item: (-item[1], item[0]))
    )
