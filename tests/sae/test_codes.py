"""Codes know their dense form and where each token begins."""

import torch

from raysae.sae import Codes


def codes() -> Codes:
    return Codes(
        token_m=torch.tensor([0, 0, 2], dtype=torch.int32),
        feature_m=torch.tensor([1, 3, 0], dtype=torch.int32),
        value_m=torch.tensor([0.5, 1.0, 2.0]),
    )


def test_dense() -> None:
    assert codes().dense(4, 5).tolist() == [
        [0, 0.5, 0, 1.0, 0],
        [0] * 5,
        [2.0, 0, 0, 0, 0],
        [0] * 5,
    ]


def test_offsets_count_tokens_without_codes() -> None:
    assert codes().offsets(4).tolist() == [0, 2, 2, 3]
    assert len(codes()) == 3


def test_to_keeps_dtypes() -> None:
    moved = codes().to("cpu")
    assert (moved.token_m.dtype, moved.value_m.dtype) == (torch.int32, torch.float32)
