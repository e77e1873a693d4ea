"""TopK + AuxK: the loss, its gradients, and that AuxK's reaches the encoder."""

import pytest
import torch

from raysae.sae import SaeSettings
from raysae.sae.architectures import StepBatch
from raysae.sae.architectures import topk as module
from raysae.sae.architectures.topk import AuxCandidates, TopK
from tests.reference.sae import top_k_columns
from tests.sae.gradient_checks import check_against_autograd, check_finite_differences, problem

SETTINGS = SaeSettings(architecture="topk", d_sae=14, k=3, aux_k=2, aux_coefficient=0.5)
DEAD_F = torch.arange(14) % 3 == 0


@pytest.mark.parametrize("aux_k", [0, 2, 5, 14])
@pytest.mark.parametrize("dead_f", [None, DEAD_F, torch.zeros(14, dtype=torch.bool)])
def test_gradients_equal_autograd(aux_k: int, dead_f: torch.Tensor | None) -> None:
    settings = SaeSettings(d_sae=14, k=3, aux_k=aux_k, aux_coefficient=0.5)
    check_against_autograd(settings, dead_f)


@pytest.mark.parametrize("dead_f", [None, DEAD_F])
def test_gradients_equal_finite_differences(dead_f: torch.Tensor | None) -> None:
    check_finite_differences(SETTINGS, dead_f)


@pytest.mark.parametrize("chunks", [[slice(0, 12)], [slice(0, 7), slice(7, 12)]])
def test_k_of_all_features(chunks: list[slice], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "row_chunks", lambda *_: chunks)
    check_against_autograd(SaeSettings(d_sae=14, k=14, aux_k=3), DEAD_F)


def test_auxk_reaches_the_encoder_of_dead_features() -> None:
    """A dead feature outside the top k gets gradient through AuxK alone."""
    weights, x_nd = problem(SETTINGS)
    with_aux = TopK().loss_gradients(weights, StepBatch(x_nd, 1 / 12, 0.0, DEAD_F), SETTINGS)
    without = TopK().loss_gradients(weights, StepBatch(x_nd, 1 / 12, 0.0, None), SETTINGS)
    silent_f = DEAD_F & (with_aux.fires_f == 0)
    assert silent_f.any()
    assert not without.gradients.W_enc_fd[silent_f].any()
    assert with_aux.gradients.W_enc_fd[silent_f].abs().sum(1).max() > 1e-3
    assert with_aux.gradients.b_enc_f[silent_f].abs().max() > 1e-3
    assert with_aux.gradients.W_dec_fd[silent_f].abs().sum(1).max() > 1e-3


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [slice(0, 5), slice(5, 10), slice(10, 12)]
    monkeypatch.setattr(module, "row_chunks", lambda *_: chunks)
    check_against_autograd(SETTINGS, DEAD_F)


@pytest.mark.parametrize("aux_k", [2, 5, 9])
def test_masked_candidates_give_the_gathered_ones(
    aux_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an accelerator does, which does not know how many features are dead."""
    monkeypatch.setattr(
        AuxCandidates, "of", classmethod(lambda cls, dead_f, k: cls(dead_f, k, gather=False))
    )
    settings = SaeSettings(d_sae=14, k=3, aux_k=aux_k, aux_coefficient=0.5)
    check_against_autograd(settings, DEAD_F)
    check_against_autograd(settings, torch.zeros(14, dtype=torch.bool))


def test_activate() -> None:
    pre_nf = torch.tensor([[1.0, 3.0, 3.0, 3.0, -1.0], [-1.0, -2.0, 0.5, -3.0, -4.0]])
    assert TopK().activate(pre_nf, 2).tolist() == [[0, 3, 3, 0, 0], [0, 0, 0.5, 0, 0]]


def test_collect_resolves_ties_across_blocks() -> None:
    torch.manual_seed(0)
    pre_nf = torch.randn(40, 30).mul(2).round().bfloat16()
    blocks = [(first, pre_nf[:, first : first + 7]) for first in range(0, 30, 7)]
    token_m, feature_m, value_m = TopK().collect(blocks, 9, 0.0)
    found = {
        (int(t), int(f)): float(v) for t, f, v in zip(token_m, feature_m, value_m, strict=True)
    }
    expected = {
        (token, column): row[column]
        for token, row in enumerate(pre_nf.tolist())
        for column in top_k_columns(row, 9)
        if row[column] > 0
    }
    assert found == expected
