"""From active features to one number per sample, and the features that decided it.

Every sum runs in float64 over one sample's features in ascending order, so that what else is in the
batch cannot change it by a bit.

Letters: n tokens, m active (token, feature) entries, e active (sample, feature) entries, s samples,
q deciding features of all samples, one sample after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from raysae.scoring.active import ActiveFeatures
from raysae.scoring.ranking import ranks_in_runs
from raysae.scoring.tokens import NEITHER, Int64Array

if TYPE_CHECKING:
    from raysae.sae import Codes
    from raysae.sample import TokenBatch
    from raysae.scoring.settings import ScoreSettings

Float64Array = npt.NDArray[np.float64]


class Scored(NamedTuple):
    """Scores of s samples with the features that decided them.

    Attributes:
        score_s: float64 (s,).
        deciding_s: int64 (s,), how many of the entries below belong to each sample.
        feature_q: int32 (q,).
        contribution_q: float32 (q,), what the feature adds to the score.
    """

    score_s: Float64Array
    deciding_s: Int64Array
    feature_q: npt.NDArray[np.int32]
    contribution_q: npt.NDArray[np.float32]


def without_features(score_s: Float64Array) -> Scored:
    """Return scores that no single feature decides."""
    return Scored(
        score_s.astype(np.float64),
        np.zeros(len(score_s), dtype=np.int64),
        np.empty(0, dtype=np.int32),
        np.empty(0, dtype=np.float32),
    )


def cosine_scores(
    active: ActiveFeatures, weight_f: npt.NDArray[np.float32], n_samples: int, deciding: int
) -> dict[str, Scored]:
    """Sum ω over all active features and over the shared ones, as sums and as means."""
    scored = {}
    for name, chosen in (
        ("cosine-union", np.ones(len(active.shared_e), dtype=bool)),
        ("cosine-cooccurring", active.shared_e),
    ):
        sample_e, feature_e = active.sample_e[chosen], active.feature_e[chosen]
        weight_e = weight_f[feature_e].astype(np.float64)
        divisor_s = np.maximum(np.bincount(sample_e, minlength=n_samples), 1)
        sum_s = np.bincount(sample_e, weights=weight_e, minlength=n_samples)
        top = _deciding(sample_e, feature_e, weight_e, deciding)
        sample_q, feature_q = sample_e[top], feature_e[top].astype(np.int32)
        deciding_s = np.bincount(sample_q, minlength=n_samples)
        for suffix, divide_s in (("", np.ones_like(divisor_s)), ("-mean", divisor_s)):
            contribution_q = (weight_e[top] / divide_s[sample_q]).astype(np.float32)
            scored[name + suffix] = Scored(sum_s / divide_s, deciding_s, feature_q, contribution_q)
    return scored


def shared_counts(active: ActiveFeatures, n_samples: int) -> Scored:
    """Count each sample's shared features (SAE-V, Algorithm 3)."""
    counts_s = np.bincount(active.sample_e[active.shared_e], minlength=n_samples)
    return without_features(counts_s.astype(np.float64))


def l0_scores(
    codes: Codes,
    batch: TokenBatch,
    side_n: npt.NDArray[np.uint8],
    n_samples: int,
    settings: ScoreSettings,
) -> Scored:
    """Mean or sum over tokens of the number of features above 0 (SAE-V, Algorithm 2)."""
    firing_m = codes.token_m[codes.value_m > 0]
    l0_n = torch.bincount(firing_m, minlength=len(batch)).cpu().numpy()
    counted_n = side_n != NEITHER
    if settings.drop_first_token:
        counted_n &= batch.position_n != 0
    sample_n = batch.sample_n[counted_n]
    l0_t = l0_n[counted_n].astype(np.float64)
    sum_s = np.bincount(sample_n, weights=l0_t, minlength=n_samples).astype(np.float64)
    if settings.l0_reduction == "mean":
        sum_s /= np.maximum(np.bincount(sample_n, minlength=n_samples), 1)
    return without_features(sum_s)


def _deciding(
    sample_e: Int64Array, feature_e: Int64Array, weight_e: Float64Array, limit: int
) -> Int64Array:
    """Return the entries that weigh most in their sample, by sample, |weight|, feature."""
    entries = np.flatnonzero(weight_e)
    order = np.lexsort((feature_e[entries], -np.abs(weight_e[entries]), sample_e[entries]))
    entries = entries[order]
    return entries[ranks_in_runs(sample_e[entries]) < limit]
