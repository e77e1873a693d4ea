"""ReLU + L1: SAE-V's loss and its gradients."""

import pytest
import torch

from raysae.sae import SaeSettings
from raysae.sae.architectures import StepBatch
from raysae.sae.architectures import relu as module
from raysae.sae.architectures.relu import ReluL1
from raysae.sae.weights import Weights
from tests.sae.gradient_checks import check_against_autograd, check_finite_differences, problem

SETTINGS = SaeSettings(architecture="relu", d_sae=14)


def test_loss_is_sae_vs_to_the_letter() -> None:
    weights, x_nd = problem(SETTINGS)
    result = ReluL1().loss_gradients(weights, StepBatch(x_nd, 1 / 12, 5.0, None), SETTINGS)
    for token, h_d in enumerate(x_nd):
        z_f = torch.relu(weights.W_enc_fd @ h_d + weights.b_enc_f)
        recon_d = weights.W_dec_fd.T @ z_f + weights.b_dec_d
        l1 = sum(z_f[f] * weights.W_dec_fd[f].norm() for f in range(14))
        assert result.squared_error_n[token].item() == pytest.approx(
            float(sum((recon_d - h_d) ** 2))
        )
        assert result.penalty_n[token].item() == pytest.approx(float(5.0 * l1))


def test_gradients_equal_autograd() -> None:
    check_against_autograd(SETTINGS)
    check_against_autograd(SETTINGS, l1_coefficient=0.0)


def test_gradients_equal_finite_differences() -> None:
    check_finite_differences(SETTINGS)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [slice(0, 5), slice(5, 10), slice(10, 12)]
    monkeypatch.setattr(module, "row_chunks", lambda *_: chunks)
    check_against_autograd(SETTINGS)


def test_row_of_norm_zero_has_a_finite_gradient() -> None:
    weights, x_nd = problem(SETTINGS)
    weights.W_dec_fd[3] = 0
    result = ReluL1().loss_gradients(weights, StepBatch(x_nd, 1 / 12, 5.0, None), SETTINGS)
    assert all(tensor.isfinite().all() for tensor in result.gradients.tensors())


def test_float32_is_close_to_float64() -> None:
    weights, x_nd = problem(SETTINGS)
    wide = ReluL1().loss_gradients(weights, StepBatch(x_nd, 1 / 12, 5.0, None), SETTINGS)
    narrow_weights = Weights(*(tensor.float() for tensor in weights.tensors()))
    batch = StepBatch(x_nd.float(), 1 / 12, 5.0, None)
    narrow = ReluL1().loss_gradients(narrow_weights, batch, SETTINGS)
    for left, right in zip(narrow.gradients.tensors(), wide.gradients.tensors(), strict=True):
        torch.testing.assert_close(left.double(), right, rtol=1e-4, atol=1e-5)
