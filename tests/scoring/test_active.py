"""Active features per sample, on a case small enough to read."""

import numpy as np
import torch

from raysae.sae import Codes
from raysae.scoring.active import active_features

CODES = Codes(
    torch.tensor([0, 0, 1, 2, 2, 3], dtype=torch.int32),
    torch.tensor([1, 3, 3, 0, 2, 3], dtype=torch.int32),
    torch.tensor([2.0, 2.0, 2.0, 1.0, 1.5, 9.0]),
)
SAMPLE = np.array([1, 1, 0, 0], dtype=np.int32)
SIDE = np.array([0, 1, 1, 2], dtype=np.uint8)


def test_entries_ascend_and_the_threshold_is_exclusive() -> None:
    active = active_features(CODES, SAMPLE, SIDE, n_samples=3, n_features=4, threshold=1.0)
    assert active.sample_e.tolist() == [0, 1, 1]
    assert active.feature_e.tolist() == [2, 1, 3]
    assert active.shared_e.tolist() == [False, False, True]


def test_no_sample() -> None:
    nothing = torch.empty(0, dtype=torch.int32)
    codes = Codes(nothing, nothing, nothing.float())
    active = active_features(codes, SAMPLE[:0], SIDE[:0], n_samples=0, n_features=4, threshold=1.0)
    assert [len(column) for column in active] == [0, 0, 0]
