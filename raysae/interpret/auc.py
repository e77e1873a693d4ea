"""AUC of a scorer against known corruption, with an interval that holds at the extremes.

s samples. AUC = P(intact score > corrupted score) + ½ P(equal), by the ranks of Mann and Whitney: 1
says that every intact row outranks every corrupted one, 0.5 that the score knows nothing of the
corruption, below 0.5 that it prefers the corrupted rows.

The 95 % interval is method 5 of Newcombe (2006, "Confidence intervals for an effect size measure
based on the Mann–Whitney statistic. Part 2", Statistics in Medicine 25): the variance of Hanley and
McNeil (1982) with both group sizes in its bracket replaced by their mean, at the *unknown* AUC θ,

    V(θ) = θ(1−θ)/(mn) · [1 + ((m+n)/2 − 1)·((1−θ)/(2−θ) + θ/(1+θ))],

and the interval is every θ with |θ − AUC| ≤ 1.96 √V(θ). Unlike DeLong's and the bootstrap's it
does not shrink to a point where the groups separate fully. It takes rows to be independent and is a
little wide for scores with many ties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from raysae.interpret.measures import AucRow, KindCount

FloatArray = npt.NDArray[np.float64]

Z_95 = 1.959963984540054
"""Normal quantile of a two-sided 95 % interval."""

ANY_KIND = "any"
INTACT = "intact"

_BISECTIONS = 60


def mean_ranks(values_s: npt.ArrayLike) -> FloatArray:
    """Return each value's rank from 1, ties sharing the mean of theirs; float64 (s,)."""
    _, inverse, counts = np.unique(np.asarray(values_s), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(ranks[inverse.reshape(-1)], dtype=np.float64)


def auc(intact_s: npt.ArrayLike, corrupted_s: npt.ArrayLike) -> float:
    """Return P(intact > corrupted) + ½ P(equal); NaN if either is empty.

    Args:
        intact_s: Finite scores of intact rows.
        corrupted_s: Finite scores of corrupted rows.
    """
    intact = np.asarray(intact_s, dtype=np.float64)
    corrupted = np.asarray(corrupted_s, dtype=np.float64)
    pairs = len(intact) * len(corrupted)
    if not pairs:
        return math.nan
    rank_sum = mean_ranks(np.concatenate([intact, corrupted]))[: len(intact)].sum()
    return float((rank_sum - len(intact) * (len(intact) + 1) / 2) / pairs)


def auc_variance(theta: float, intact: int, corrupted: int) -> float:
    """Return V(θ) of the module's formula: the variance of an AUC whose true value is `theta`."""
    spread = (1 - theta) / (2 - theta) + theta / (1 + theta)
    bracket = 1 + ((intact + corrupted) / 2 - 1) * spread
    return theta * (1 - theta) / (intact * corrupted) * bracket


def auc_interval(value: float, intact: int, corrupted: int) -> tuple[float, float]:
    """Return the 95 % interval of an AUC (Newcombe's method 5, see the module).

    Args:
        value: The AUC.
        intact: Number of intact rows.
        corrupted: Number of corrupted rows.

    Returns:
        (low, high) within [0, 1]; NaN twice if there is no AUC.
    """
    if math.isnan(value):
        return math.nan, math.nan
    return _end(value, 0.0, intact, corrupted), _end(value, 1.0, intact, corrupted)


def _end(value: float, far: float, intact: int, corrupted: int) -> float:
    """Bisect between the AUC, which is compatible with the data, and 0 or 1, which is not."""
    near = value
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        bound = Z_95 * math.sqrt(auc_variance(middle, intact, corrupted))
        if abs(middle - value) <= bound:
            near = middle
        else:
            far = middle
    return near


def auc_by_kind(
    scores: Mapping[str, npt.ArrayLike], kind_s: Sequence[str] | npt.NDArray[np.str_]
) -> tuple[AucRow, ...]:
    """Measure each scorer against each kind of corruption, and against all of them together.

    Args:
        scores: Scorer → float (s,); rows that are not finite are left out of that scorer.
        kind_s: (s,) kind of corruption of each row, "" for an intact one.

    Returns:
        In the scorers' order; per scorer `any` first, then the kinds by name.
    """
    kinds_s = np.asarray(kind_s, dtype=np.str_)
    kinds = sorted(set(kinds_s.tolist()) - {""})
    rows: list[AucRow] = []
    for scorer, values in scores.items():
        score_s = np.asarray(values, dtype=np.float64)
        finite_s = np.isfinite(score_s)
        intact = score_s[finite_s & (kinds_s == "")]
        masks = {ANY_KIND: kinds_s != ""} | {kind: kinds_s == kind for kind in kinds}
        rows += [
            _row(scorer, kind, intact, score_s[finite_s & mask_s]) for kind, mask_s in masks.items()
        ]
    return tuple(rows)


def _row(scorer: str, kind: str, intact_s: FloatArray, corrupted_s: FloatArray) -> AucRow:
    value = auc(intact_s, corrupted_s)
    low, high = auc_interval(value, len(intact_s), len(corrupted_s))
    return AucRow(scorer, kind, len(corrupted_s), len(intact_s), value, low, high)


def kind_counts(
    kind_s: Sequence[str] | npt.NDArray[np.str_], kept_s: npt.ArrayLike
) -> tuple[KindCount, ...]:
    """Count the rows of each kind and those kept.

    Args:
        kind_s: (s,) kind of corruption of each scored row, "" for an intact one.
        kept_s: bool (s,), whether the row is in the subset.

    Returns:
        `intact` first, then the kinds by name.
    """
    kinds_s = np.asarray(kind_s, dtype=np.str_)
    kept = np.asarray(kept_s, dtype=np.bool_)
    kinds = ["", *sorted(set(kinds_s.tolist()) - {""})]
    return tuple(
        KindCount(kind or INTACT, int((kinds_s == kind).sum()), int(kept[kinds_s == kind].sum()))
        for kind in kinds
    )
