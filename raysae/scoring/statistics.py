"""What the scores say: do they tell corrupted samples, do they merely count tokens?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysae.errors import DataError

Float64Array = npt.NDArray[np.float64]


def average_ranks(values: npt.ArrayLike) -> Float64Array:
    """Rank values from 1, equal values sharing the mean of their ranks; float64, same length."""
    _, inverse, counts = np.unique(
        np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    ranks: Float64Array = (last - (counts - 1) / 2)[inverse.ravel()]
    return ranks


def auc(scores: npt.ArrayLike, is_corrupt: npt.ArrayLike) -> float:
    """Return the probability that an intact sample scores above a corrupted one, ties half.

    1 is a perfect filter, 0.5 says nothing, below 0.5 the score prefers what is corrupted. It is
    the Mann-Whitney statistic over the number of pairs.

    Args:
        scores: (s,) numbers, none NaN.
        is_corrupt: (s,) booleans.

    Raises:
        DataError: One of the two kinds is absent, a score is NaN, or the lengths differ.
    """
    score_s = np.asarray(scores, dtype=np.float64)
    corrupt_s = np.asarray(is_corrupt, dtype=bool)
    if score_s.shape != corrupt_s.shape or np.isnan(score_s).any():
        raise DataError("An AUC needs one score, not NaN, and one label per sample.")
    n_corrupt = int(corrupt_s.sum())
    n_intact = len(corrupt_s) - n_corrupt
    if n_corrupt == 0 or n_intact == 0:
        raise DataError(
            f"An AUC needs intact and corrupted samples, got {n_intact} and {n_corrupt}."
        )
    above = average_ranks(score_s)[~corrupt_s].sum() - n_intact * (n_intact + 1) / 2
    return float(above / (n_intact * n_corrupt))


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float | None:
    """Return Spearman's rank correlation, ties sharing ranks; None if either is constant or empty.

    Raises:
        DataError: The lengths differ, or a value is NaN.
    """
    x_s, y_s = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x_s.shape != y_s.shape or np.isnan(x_s).any() or np.isnan(y_s).any():
        raise DataError("A rank correlation needs two columns of equal length without NaN.")
    if len(x_s) == 0:
        return None
    x_s, y_s = (ranks - ranks.mean() for ranks in (average_ranks(x_s), average_ranks(y_s)))
    spread = float(np.sqrt((x_s @ x_s) * (y_s @ y_s)))
    return float(np.clip((x_s @ y_s) / spread, -1, 1)) if spread > 0 else None


def token_count_correlations(
    tables: Mapping[str, pa.Table],
) -> dict[str, dict[str, float | None]]:
    """Correlate each scorer's scores with the samples' token counts (Spearman).

    A score that only counts tokens has a correlation near 1.

    Args:
        tables: Scorer name → table in `SCORE_SCHEMA`.

    Returns:
        Scorer name → `text_tokens`, `image_tokens`, `tokens` (both) → correlation, None where it is
        undefined.
    """
    correlations = {}
    for scorer, table in tables.items():
        score_s = table["score"].to_numpy()
        text_s, image_s = (table[name].to_numpy() for name in ("text_tokens", "image_tokens"))
        columns = {"text_tokens": text_s, "image_tokens": image_s, "tokens": text_s + image_s}
        correlations[scorer] = {name: spearman(score_s, c) for name, c in columns.items()}
    return correlations
