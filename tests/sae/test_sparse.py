"""Sparse products equal the dense ones."""

import pytest
import torch

from raysae.sae.sparse import combine_rows, count_by_feature, dot_rows, order_by_feature

N, K, F, D = 30, 4, 25, 6


@pytest.fixture
def code() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    feature_nk = torch.stack([torch.randperm(F - 2)[:K] for _ in range(N)])  # two never occur
    value_nk = torch.rand(N, K, dtype=torch.float64)
    value_nk[:5, 0] = 0
    z_nf = torch.zeros(N, F, dtype=torch.float64).scatter_(1, feature_nk, value_nk)
    return feature_nk, value_nk, z_nf


def test_sums_by_feature(code: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    feature_nk, value_nk, z_nf = code
    rows_nd = torch.randn(N, D, dtype=torch.float64)
    order = order_by_feature(feature_nk, F)
    torch.testing.assert_close(order.sum_rows(value_nk, rows_nd), z_nf.T @ rows_nd)
    torch.testing.assert_close(order.sum_values(value_nk), z_nf.sum(0))
    counts_f = count_by_feature(feature_nk, value_nk > 0, F)
    assert torch.equal(counts_f, (z_nf > 0).sum(0).float())


def test_products_with_feature_rows(code: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    feature_nk, value_nk, z_nf = code
    rows_fd = torch.randn(F, D, dtype=torch.float64)
    left_nd = torch.randn(N, D, dtype=torch.float64)
    torch.testing.assert_close(combine_rows(feature_nk, value_nk, rows_fd), z_nf @ rows_fd)
    dots_nk = dot_rows(feature_nk, left_nd, rows_fd)
    torch.testing.assert_close(dots_nk, (left_nd @ rows_fd.T).gather(1, feature_nk))
