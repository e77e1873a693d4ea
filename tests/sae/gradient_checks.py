"""Shared by the tests of the architectures: hand-written gradients against the slow twin."""

from __future__ import annotations

import torch

from raysae.sae import SaeSettings
from raysae.sae.architectures import StepBatch, architecture_named
from raysae.sae.weights import Weights
from tests.reference import sae as reference

N, D = 12, 5


def problem(settings: SaeSettings, seed: int = 0) -> tuple[Weights, torch.Tensor]:
    """Random float64 weights without any symmetry, and inputs (N, D)."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d_sae = settings.d_sae
    weights = Weights(random(d_sae, D), random(d_sae, D), random(d_sae) / 3, random(D))
    return weights, random(N, D)


def check_against_autograd(
    settings: SaeSettings, dead_f: torch.Tensor | None = None, l1_coefficient: float = 0.7
) -> None:
    """Loss terms, fires, L0 and all gradients equal those of the autograd twin."""
    weights, x_nd = problem(settings)
    batch = StepBatch(x_nd, 1 / N, l1_coefficient, dead_f)
    result = architecture_named(settings.architecture).loss_gradients(weights, batch, settings)
    leaves = [tensor.clone().requires_grad_() for tensor in weights.tensors()]
    expected = reference.loss(leaves, x_nd, settings, l1_coefficient=l1_coefficient, dead_f=dead_f)
    expected_gradients = torch.autograd.grad(expected.total, leaves)
    torch.testing.assert_close(result.squared_error_n, expected.squared_error_n.detach())
    torch.testing.assert_close(result.penalty_n, expected.penalty_n.detach())
    active_nf = expected.z_nf.detach() > 0
    assert torch.equal(result.l0_n.long(), active_nf.sum(1))
    assert torch.equal(result.fires_f.long(), active_nf.sum(0))
    named = result.gradients.by_name()
    for name, gradient in zip(named, expected_gradients, strict=True):
        torch.testing.assert_close(named[name], gradient)


def check_finite_differences(
    settings: SaeSettings, dead_f: torch.Tensor | None = None, l1_coefficient: float = 0.7
) -> None:
    """Each entry of every gradient is the loss' difference quotient."""
    weights, x_nd = problem(settings)
    batch = StepBatch(x_nd, 1 / N, l1_coefficient, dead_f)
    result = architecture_named(settings.architecture).loss_gradients(weights, batch, settings)
    z_nf = reference.encode(
        x_nd,
        weights.W_enc_fd,
        weights.b_enc_f,
        weights.b_dec_d,
        architecture=settings.architecture,
        k=settings.k,
    )
    residual_nd = x_nd - z_nf @ weights.W_dec_fd - weights.b_dec_d
    tensors = weights.by_name()

    def loss() -> float:
        found = reference.loss(
            weights.tensors(),
            x_nd,
            settings,
            l1_coefficient=l1_coefficient,
            dead_f=dead_f,
            residual_nd=residual_nd,
        )
        return float(found.total)

    step = 1e-6
    for name, gradient in result.gradients.by_name().items():
        flat = tensors[name].view(-1)
        for index in range(0, flat.numel(), 3):
            middle = flat[index].item()
            flat[index] = middle + step
            above = loss()
            flat[index] = middle - step
            quotient = (above - loss()) / (2 * step)
            flat[index] = middle
            assert abs(quotient - gradient.view(-1)[index].item()) < 1e-6, (name, index)
