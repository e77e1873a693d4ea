"""Where training starts: the scale of the inputs, b_dec, and the first weights.

Shape letters: n tokens, d `d_in`, f features.
"""

from __future__ import annotations

import math

import torch

from raysae.errors import DataError
from raysae.sae.architectures import architecture_named
from raysae.sae.settings import SaeSettings
from raysae.sae.weights import Weights


def input_scale(settings: SaeSettings, acts_nd: torch.Tensor) -> float:
    """Return the constant that the inputs are multiplied by in training.

    With `mean-norm` it is √d_in / (mean norm of the sample), as in SAELens'
    `expected_average_only_in` and so in SAE-V's code; with `none` it is 1.

    Raises:
        DataError: The sample is empty, all zero, or not finite.
    """
    if acts_nd.ndim != 2 or len(acts_nd) == 0:
        raise DataError(
            f"SAE training: the first sample of hidden states has shape {tuple(acts_nd.shape)}; "
            "it must hold at least one token."
        )
    mean_norm = torch.linalg.vector_norm(acts_nd.double(), dim=1).mean().item()
    if not (math.isfinite(mean_norm) and mean_norm > 0):
        raise DataError(
            f"SAE training: the mean norm of the first sample of hidden states is {mean_norm}; the "
            "cache holds zeros, NaN or infinity, so make it again in another dtype."
        )
    return 1.0 if settings.normalize == "none" else math.sqrt(acts_nd.shape[1]) / mean_norm


def geometric_median(x_nd: torch.Tensor, max_steps: int = 100) -> torch.Tensor:
    """Return the point (d_in,) with the least sum of distances to the tokens (Weiszfeld, 1937).

    Unlike the mean it is hardly moved by the few tokens of huge norm that residual streams have.

    Args:
        x_nd: (n, d_in).
        max_steps: Stops after these many, or when it moves by less than 1e-6 of its norm.
    """
    x_nd = x_nd.double()
    median_d = x_nd.mean(0)
    for _ in range(max_steps):
        distance_n = torch.linalg.vector_norm(x_nd - median_d, dim=1)
        weight_n = 1 / distance_n.clamp_min(1e-12)
        moved_d = (weight_n @ x_nd) / weight_n.sum()
        shift = torch.linalg.vector_norm(moved_d - median_d)
        median_d = moved_d
        if shift <= 1e-6 * torch.linalg.vector_norm(median_d):
            break
    return median_d


def first_weights(
    settings: SaeSettings, x_nd: torch.Tensor, device: torch.device, dtype: torch.dtype
) -> Weights:
    """Return the weights before the first step.

    W_dec has random directions of the architecture's start norm (from `seed`, drawn on the CPU so
    that every device starts alike), W_enc = W_decᵀ, b_enc = 0, b_dec the geometric median.

    Args:
        settings: The training's.
        x_nd: (n, d_in), a sample of scaled inputs; at most its first 4,096 tokens are used.
        device: Where the weights shall be.
        dtype: Of the weights.
    """
    d_in = x_nd.shape[1]
    generator = torch.Generator().manual_seed(settings.seed)
    W_dec_fd = torch.randn(settings.d_sae, d_in, generator=generator).to(dtype=dtype)
    W_dec_fd /= torch.linalg.vector_norm(W_dec_fd, dim=1, keepdim=True)
    W_dec_fd *= architecture_named(settings.architecture).start_norm
    W_dec_fd = W_dec_fd.to(device)
    return Weights(
        W_enc_fd=W_dec_fd.clone(),
        W_dec_fd=W_dec_fd,
        b_enc_f=torch.zeros(settings.d_sae, device=device, dtype=dtype),
        b_dec_d=geometric_median(x_nd[:4096]).to(device=device, dtype=dtype),
    )
