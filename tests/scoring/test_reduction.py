"""Sums, means, counts and deciding features, on a case small enough to read."""

import numpy as np

from raysae.scoring.active import ActiveFeatures
from raysae.scoring.reduction import cosine_scores, shared_counts

ACTIVE = ActiveFeatures(
    np.array([0, 0, 0, 2]), np.array([0, 1, 2, 1]), np.array([True, False, True, False])
)
WEIGHT = np.array([0.5, 0.25, -1.0], dtype=np.float32)


def test_sums_and_means() -> None:
    scored = cosine_scores(ACTIVE, WEIGHT, 3, 2)
    assert scored["cosine-union"].score_s.tolist() == [-0.25, 0.0, 0.25]
    assert scored["cosine-cooccurring"].score_s.tolist() == [-0.5, 0.0, 0.0]
    assert scored["cosine-cooccurring-mean"].score_s.tolist() == [-0.25, 0.0, 0.0]


def test_deciding_features_go_by_size() -> None:
    scored = cosine_scores(ACTIVE, WEIGHT, 3, 2)
    union = scored["cosine-union"]
    assert union.deciding_s.tolist() == [2, 0, 1]
    assert union.feature_q.tolist() == [2, 0, 1]
    assert union.contribution_q.tolist() == [-1.0, 0.5, 0.25]
    assert scored["cosine-cooccurring-mean"].contribution_q.tolist() == [-0.5, 0.25]


def test_shared_counts() -> None:
    assert shared_counts(ACTIVE, 3).score_s.tolist() == [2.0, 0.0, 0.0]
