"""Sample scores: which of a sample's features count, and what they add up to.

Over the features that exceed δ on some token of a sample (SAE-V, Algorithms 1 to 3):

| scorer | score |
|---|---|
| `cosine-union` | Σ ω over features active on any text or image token (paper) |
| `cosine-cooccurring` | Σ ω over those active on ≥ 1 text and ≥ 1 image token (released code) |
| `cosine-union-mean`, `cosine-cooccurring-mean` | the same, divided by the number of features |
| `l0` | features above 0 per token: mean (released code) or sum (paper) over the tokens |
| `l0-cooccurring` | number of features active on ≥ 1 text and ≥ 1 image token |
| `random` | a hash of seed and sample id |

The union *rewards* a mismatch of text and image: |A ∪ B| = |A| + |B| − |A ∩ B| grows as the
intersection shrinks. Sums grow with the number of tokens, hence the mean forms. Special tokens
count for nothing (but see `ScoreSettings.bos_is_text`). A sample without an active
feature scores 0.

Letters: n tokens, m active (token, feature) entries, e active (sample, feature) entries, s samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raysae.artifacts import SCORE_SCHEMA
from raysae.errors import DataError
from raysae.sample import TokenBatch
from raysae.scoring.active import active_features
from raysae.scoring.reduction import (
    Scored,
    cosine_scores,
    l0_scores,
    shared_counts,
    without_features,
)
from raysae.scoring.settings import ScoreSettings
from raysae.scoring.tokens import (
    IMAGE,
    TEXT,
    Int64Array,
    check_codes,
    random_score,
    token_sides,
)
from raysae.scoring.weights import FeatureWeights

if TYPE_CHECKING:
    from raysae.sae import Codes

SAE_SCORERS = (
    "cosine-union",
    "cosine-union-mean",
    "cosine-cooccurring",
    "cosine-cooccurring-mean",
    "l0",
    "l0-cooccurring",
)
"""Scorers that need a model and an SAE (all but the two `l0` ones need feature weights too)."""

UNIMODAL_SCORERS = ("l0", "random")
"""Scorers that tell rows apart where there is text alone."""

SCORERS = (*SAE_SCORERS, "random")
"""Every scorer."""


def score_batch(
    codes: Codes,
    batch: TokenBatch,
    weights: FeatureWeights,
    settings: ScoreSettings,
    *,
    sample_ids: Sequence[str],
    ordinals: Sequence[int] | Int64Array,
) -> dict[str, pa.Table]:
    """Score every sample of a batch with every scorer.

    A sample's scores depend on its own tokens alone, to the bit, whatever else is in the batch.

    Args:
        codes: The batch's sparse codes, encoded with a threshold of 0 (`l0` counts every positive
            activation). Any device.
        batch: The tokens; `sample_n` indexes `sample_ids`. The hidden states are not read.
        weights: ω of the same SAE.
        settings: δ and the readings.
        sample_ids: The s samples' ids; a sample may be without tokens.
        ordinals: Their ordinals.

    Returns:
        Scorer name → table in `SCORE_SCHEMA`, one row per sample in the order given. `features` are
        those that decided the score most, by |contribution|, then feature index, at most
        `settings.deciding`; features that contribute nothing are left out.

    Raises:
        DataError: Token, feature or sample numbers do not fit.
    """
    n_samples = len(sample_ids)
    check_codes(codes, len(batch), len(weights))
    if len(batch) and not 0 <= int(batch.sample_n.min()) <= int(batch.sample_n.max()) < n_samples:
        raise DataError(
            f"The batch holds tokens of sample {int(batch.sample_n.max())}, but {n_samples} sample "
            "ids were given."
        )
    side_n = token_sides(batch.modality_n, batch.position_n, bos_is_text=settings.bos_is_text)
    active = active_features(
        codes,
        batch.sample_n,
        side_n,
        n_samples=n_samples,
        n_features=len(weights),
        threshold=settings.threshold,
    )
    scored = cosine_scores(active, weights.weight_f, n_samples, settings.deciding)
    scored["l0"] = l0_scores(codes, batch, side_n, n_samples, settings)
    scored["l0-cooccurring"] = shared_counts(active, n_samples)
    scored["random"] = _random(sample_ids, settings.seed)
    text_s, image_s = (
        np.bincount(batch.sample_n[side_n == side], minlength=n_samples) for side in (TEXT, IMAGE)
    )
    return {name: _rows(sample_ids, ordinals, text_s, image_s, scored[name]) for name in SCORERS}


def _random(sample_ids: Sequence[str], seed: int) -> Scored:
    scores = [random_score(sample_id, seed) for sample_id in sample_ids]
    return without_features(np.array(scores, dtype=np.float64))


def _rows(
    sample_ids: Sequence[str],
    ordinals: Sequence[int] | Int64Array,
    text_s: Int64Array,
    image_s: Int64Array,
    scored: Scored,
) -> pa.Table:
    """Lay scores out in `SCORE_SCHEMA`."""
    ends = np.cumsum(scored.deciding_s, dtype=np.int32)
    offsets = pa.array(np.concatenate([np.zeros(1, dtype=np.int32), ends]))
    columns = [
        pa.array(list(sample_ids), pa.string()),
        pa.array(np.asarray(ordinals, dtype=np.int64)),
        pa.array(scored.score_s),
        pa.array(text_s.astype(np.int32)),
        pa.array(image_s.astype(np.int32)),
        pa.ListArray.from_arrays(offsets, pa.array(scored.feature_q)),
        pa.ListArray.from_arrays(offsets, pa.array(scored.contribution_q)),
    ]
    return pa.table(columns, schema=SCORE_SCHEMA)
