"""Sums by modality give L0 and FVU, and merge by addition."""

import math

import numpy as np
import pytest
import torch

from raysae.errors import DataError
from raysae.sae.sums import ModalitySums, as_modality_tensor
from tests.reference.sae import fvu


def test_groups_equal_the_slow_twin() -> None:
    torch.manual_seed(0)
    x_nd = torch.randn(2100, 5) + 1000  # a mean that would cancel in float32
    recon_nd = x_nd + torch.randn(2100, 5) / 3
    modality_n = torch.randint(0, 3, (2100,))
    l0_n = torch.randint(0, 9, (2100,))
    first, second = ModalitySums(5), ModalitySums(5)
    error_n = (recon_nd - x_nd).square().sum(1)
    first.add(x_nd[:100], error_n[:100], l0_n[:100], modality_n[:100])
    second.add(x_nd[100:], error_n[100:], l0_n[100:], modality_n[100:])
    for mine, theirs in zip(first.tensors(), second.tensors(), strict=True):
        mine.add_(theirs)
    for name, member_n in (("all", modality_n >= 0), ("text", modality_n == 0)):
        group = first.group(name)
        assert group["tokens"] == member_n.sum()
        assert group["l0"] == pytest.approx(float(l0_n[member_n].double().mean()))
        expected = fvu(x_nd[member_n].double(), recon_nd[member_n].double())
        assert group["fvu"] == pytest.approx(expected, rel=1e-5)


def test_empty_group_is_nan() -> None:
    group = ModalitySums(3).group("image")
    assert group["tokens"] == 0
    assert math.isnan(group["fvu"])


def test_modalities_must_fit_the_tokens() -> None:
    given = np.zeros(3, np.uint8)
    given.flags.writeable = False
    assert as_modality_tensor(given, 3, torch.device("cpu")).tolist() == [0, 0, 0]
    with pytest.raises(DataError, match="4 tokens"):
        as_modality_tensor(given, 4, torch.device("cpu"))
