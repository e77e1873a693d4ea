"""Input scale, geometric median, first weights."""

from typing import Literal

import pytest
import torch

from raysae.errors import DataError
from raysae.sae import SaeSettings
from raysae.sae.start import first_weights, geometric_median, input_scale

CPU = torch.device("cpu")


def test_scale_makes_the_mean_norm_the_root_of_d_in() -> None:
    acts_nd = torch.randn(100, 16) * 7
    scale = input_scale(SaeSettings(), acts_nd)
    assert (acts_nd * scale).norm(dim=1).mean().item() == pytest.approx(4.0, rel=1e-5)
    assert input_scale(SaeSettings(normalize="none"), acts_nd) == 1.0


@pytest.mark.parametrize(
    "acts_nd", [torch.zeros(3, 4), torch.full((3, 4), torch.nan), torch.ones(0, 4), torch.ones(4)]
)
def test_unusable_sample(acts_nd: torch.Tensor) -> None:
    with pytest.raises(DataError, match="first sample of hidden states"):
        input_scale(SaeSettings(), acts_nd)


def test_geometric_median_minimises_distances_and_ignores_outliers() -> None:
    torch.manual_seed(0)
    x_nd = torch.randn(201, 5, dtype=torch.float64) + 3
    x_nd[0] = 1e6
    median_d = geometric_median(x_nd)
    assert (median_d - 3).abs().max() < 0.5

    def distances(point_d: torch.Tensor) -> float:
        return float(sum((x_d - point_d).norm() for x_d in x_nd))

    for _ in range(20):
        moved_d = median_d + 1e-2 * torch.randn(5, dtype=torch.float64)
        assert distances(median_d) < distances(moved_d)


@pytest.mark.parametrize(("architecture", "norm"), [("relu", 0.1), ("topk", 1.0)])
def test_first_weights(architecture: Literal["relu", "topk"], norm: float) -> None:
    settings = SaeSettings(architecture=architecture, d_sae=40)
    x_nd = torch.randn(50, 8)
    weights = first_weights(settings, x_nd, CPU, torch.float32)
    assert torch.equal(weights.W_enc_fd, weights.W_dec_fd)
    assert weights.W_enc_fd.data_ptr() != weights.W_dec_fd.data_ptr()
    torch.testing.assert_close(weights.W_dec_fd.norm(dim=1), torch.full((40,), norm))
    torch.testing.assert_close(weights.b_dec_d.double(), geometric_median(x_nd), rtol=0, atol=1e-6)
    assert not weights.b_enc_f.any()
    again = first_weights(settings, x_nd, CPU, torch.float32)
    assert torch.equal(weights.W_dec_fd, again.W_dec_fd)
