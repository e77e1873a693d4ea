"""Top k has one answer, ties included."""

from collections.abc import Callable

import pytest
import torch

from raysae.sae.selection import _exact_top_k, unique_top_k
from tests.reference.sae import top_k_columns


@pytest.mark.parametrize("select", [unique_top_k, _exact_top_k])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_equals_the_slow_twin(
    select: Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]],
    dtype: torch.dtype,
    k: int,
) -> None:
    torch.manual_seed(k)
    x_nf = torch.randn(50, 64).to(dtype)
    x_nf[10:30] = x_nf[10:30].mul(2).round()  # many ties
    x_nf[30:35] = 0
    x_nf[35:40, ::2] = -torch.inf
    value_nk, column_nk = select(x_nf, k)
    assert torch.equal(value_nk, x_nf.gather(1, column_nk))
    for row, columns in zip(x_nf.tolist(), column_nk.tolist(), strict=True):
        assert sorted(columns) == top_k_columns(row, k)


def test_bfloat16_ties_are_common_and_resolved() -> None:
    torch.manual_seed(0)
    x_nf = torch.randn(200, 2048).bfloat16()
    ordered = x_nf.sort(dim=1, descending=True).values
    tied = (ordered[:, 31] == ordered[:, 32]).float().mean()
    assert tied > 0.2
    _, column_nk = unique_top_k(x_nf, 32)
    for row, columns in zip(x_nf.tolist(), column_nk.tolist(), strict=True):
        assert sorted(columns) == top_k_columns(row, 32)


def test_all_columns() -> None:
    x_nf = torch.randn(3, 4)
    value_nk, column_nk = unique_top_k(x_nf, 4)
    assert torch.equal(value_nk, x_nf)
    assert column_nk.tolist() == [[0, 1, 2, 3]] * 3
