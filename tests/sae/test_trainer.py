"""Training equals the slow twin, resumes to the bit, and folds its scale in."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch

from raysae.errors import DataError
from raysae.sae import SaeTrainer
from tests.reference import sae as reference
from tests.sae.training import BATCH, D, batch, modality, settings, trainer, weights_of

BOTH = pytest.mark.parametrize("architecture", ["relu", "topk"])


@BOTH
def test_thirty_steps_equal_the_slow_twin(architecture: str) -> None:
    fast = trainer(architecture)
    scale = fast.state_dict()["scale"]
    slow = reference.Trainer(fast.settings, list(weights_of(fast).values()))
    had_dead = False
    for step in range(30):
        fast.step(batch(step), modality())
        expected = slow.step(batch(step) * scale)
        metrics = fast.metrics()
        assert metrics["loss"] == pytest.approx(expected, rel=1e-9)
        dead = sum(idle >= fast.settings.dead_after_tokens for idle in slow.idle)
        assert metrics["dead_share"] == pytest.approx(dead / 40)
        had_dead |= dead > 0
    assert had_dead or architecture == "relu", "without dead features AuxK is not tested"
    for tensor, twin in zip(weights_of(fast).values(), slow.weights, strict=True):
        torch.testing.assert_close(tensor, twin.detach(), rtol=1e-8, atol=1e-9)


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_resume_is_exact_to_the_bit(architecture: str, dtype: torch.dtype) -> None:
    straight = trainer(architecture, dtype)
    for step in range(12):
        straight.step(batch(step), modality())
    saved = straight.state_dict()
    kept = copy.deepcopy(saved)
    for step in range(12, 24):
        straight.step(batch(step), modality())
    resumed = SaeTrainer(straight.settings, D, "cpu", batch(5) * 3, dtype=dtype)
    resumed.load_state_dict(through_a_file(saved))
    for step in range(12, 24):
        resumed.step(batch(step), modality())
    assert_same_state(resumed.state_dict(), straight.state_dict())
    assert_same_state(saved, kept)  # a state is a copy: later steps do not reach it


def test_a_state_without_copies_is_the_trainers_own() -> None:
    straight = trainer("topk", torch.float32)
    straight.step(batch(0), modality())
    shared, copied = straight.state_dict(copies=False), straight.state_dict()
    assert_same_state(shared, copied)
    straight.step(batch(1), modality())
    assert_same_state(shared["weights"], straight.state_dict()["weights"])
    assert not torch.equal(shared["weights"]["W_enc_fd"], copied["weights"]["W_enc_fd"])


def assert_same_state(left: Any, right: Any) -> None:
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same_state(left[key], right[key])
    elif isinstance(left, list | tuple):
        for one, other in zip(left, right, strict=True):
            assert_same_state(one, other)
    else:
        assert left == right


def test_resume_with_other_settings_is_refused() -> None:
    state = trainer("topk").state_dict()
    with pytest.raises(DataError, match=r"sae\.k, sae\.lr"):
        trainer("topk", k=2, lr=0.5).load_state_dict(state)


@BOTH
def test_finished_sae_works_on_raw_inputs(architecture: str) -> None:
    trained = trainer(architecture)
    for step in range(10):
        trained.step(batch(step), modality())
    sae, state = trained.finished_sae(), trained.state_dict()
    weights, acts_nd = state["weights"], batch(77)
    x_nd = acts_nd * state["scale"]
    assert state["scale"] != 1.0
    z_nf = reference.encode(
        x_nd,
        weights["W_enc_fd"],
        weights["b_enc_f"],
        weights["b_dec_d"],
        architecture=architecture,
        k=3,
    )
    torch.testing.assert_close(sae.encode(acts_nd), z_nf)
    recon_nd = (z_nf @ weights["W_dec_fd"] + weights["b_dec_d"]) / state["scale"]
    torch.testing.assert_close(sae.decode(z_nf), recon_nd)
    assert sae.k == (3 if architecture == "topk" else 0)


def test_topk_keeps_the_decoder_at_norm_one() -> None:
    trained = trainer("topk", torch.float32)
    for step in range(10):
        trained.step(batch(step), modality())
    norms = weights_of(trained)["W_dec_fd"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(40))


@BOTH
def test_bfloat16_inputs_keep_float32_weights(architecture: str) -> None:
    narrow, wide = trainer(architecture, torch.float32), trainer(architecture, torch.float32)
    for step in range(5):
        rounded = batch(step).bfloat16()
        narrow.step(rounded, modality())
        wide.step(rounded.float(), modality().numpy())
    for mine, theirs in zip(weights_of(narrow).values(), weights_of(wide).values(), strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, theirs)


def test_metrics_cover_the_window_and_each_modality() -> None:
    trained = trainer("topk")
    for step in range(2):
        trained.step(batch(step), modality())
    metrics = trained.metrics()
    assert (metrics["step"], metrics["tokens"]) == (2, 2 * BATCH)
    assert metrics["l0"] == pytest.approx((metrics["l0_text"] + metrics["l0_image"]) / 2)
    assert metrics["lr"] == pytest.approx(0.5e-2)
    assert metrics["fvu"] > 0
    trained.step(batch(2), np.zeros(BATCH, np.uint8))
    assert "l0_image" not in trained.metrics()


@pytest.mark.parametrize(
    ("acts_nd", "message"),
    [
        (torch.zeros(BATCH, D + 1), "d_in = 6"),
        (torch.zeros(BATCH - 1, D), "31 tokens"),
        (torch.zeros(D), "d_in = 6"),
    ],
)
def test_wrong_batches_are_named(acts_nd: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        trainer("relu").step(acts_nd, modality(len(acts_nd)))


def test_same_seed_same_start_other_seed_other_start() -> None:
    first, again, other = (weights_of(trainer("relu", seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first["W_dec_fd"], again["W_dec_fd"])
    assert not torch.equal(first["W_dec_fd"], other["W_dec_fd"])


def test_settings_are_those_given() -> None:
    assert trainer("relu").settings == settings("relu")
