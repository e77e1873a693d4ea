"""Health by modality, and that merging is the same as counting at once."""

import math

import numpy as np
import pytest
import torch

from raysae.sae import Codes, Sae, SaeHealth
from tests.reference.sae import fvu


def batch() -> tuple[torch.Tensor, Codes, torch.Tensor, np.ndarray]:
    torch.manual_seed(0)
    z_nf = torch.rand(40, 6) * (torch.rand(40, 6) < 0.3)
    z_nf[:, 5] = 0  # never fires
    z_nf[:, 4] = 0.5  # always fires
    z_nf[20:, 3] = 0  # text only
    token_m, feature_m = z_nf.nonzero(as_tuple=True)
    codes = Codes(token_m.int(), feature_m.int(), z_nf[token_m, feature_m])
    acts_nd, recon_nd = torch.randn(40, 3), torch.randn(40, 3)
    return acts_nd, codes, recon_nd, np.repeat(np.array([0, 1], np.uint8), 20)


def test_summary() -> None:
    acts_nd, codes, recon_nd, modality_n = batch()
    health = SaeHealth(3, 6, dense_rate=0.9)
    health.update(acts_nd, codes, recon_nd, modality_n)
    summary, z_nf = health.summary(), codes.dense(40, 6)
    for name, rows in (("all", slice(0, 40)), ("text", slice(0, 20)), ("image", slice(20, 40))):
        fires_nf = z_nf[rows] > 0
        expected_fvu = fvu(acts_nd[rows].double(), recon_nd[rows].double())
        assert summary[name]["tokens"] == len(fires_nf)
        assert summary[name]["l0"] == pytest.approx(float(fires_nf.sum(1).double().mean()))
        assert summary[name]["fvu"] == pytest.approx(expected_fvu, rel=1e-5)
        assert summary[name]["dense_share"] == pytest.approx(1 / 6)
        rate_f = fires_nf.double().mean(0)
        torch.testing.assert_close(health.firing_rate(name), rate_f)
        assert summary[name]["dead_share"] == pytest.approx(float((rate_f == 0).double().mean()))
        assert summary[name]["alive_share"] == pytest.approx(1 - summary[name]["dead_share"])
    assert summary["image"]["dead_share"] > summary["all"]["dead_share"]


def test_merge_equals_counting_at_once() -> None:
    acts_nd, codes, recon_nd, modality_n = batch()
    whole, first, second = (SaeHealth(3, 6) for _ in range(3))
    whole.update(acts_nd, codes, recon_nd, modality_n)
    for part, rows in ((first, slice(0, 15)), (second, slice(15, 40))):
        inside = (codes.token_m >= rows.start) & (codes.token_m < rows.stop)
        part_codes = Codes(
            codes.token_m[inside] - rows.start, codes.feature_m[inside], codes.value_m[inside]
        )
        part.update(acts_nd[rows], part_codes, recon_nd[rows], modality_n[rows])
    sent = SaeHealth(3, 6)
    sent.load_state_dict(second.state_dict())
    first.merge(sent)
    for mine, theirs in zip(first.summary().values(), whole.summary().values(), strict=True):
        assert mine == pytest.approx(theirs)


def test_no_tokens() -> None:
    summary = SaeHealth(3, 6).summary()
    assert summary["all"]["dead_share"] == 1.0
    assert math.isnan(summary["text"]["fvu"])


def test_measure() -> None:
    identity = torch.eye(3)
    sae = Sae(identity, torch.zeros(3), identity, torch.zeros(3), "relu")
    health = SaeHealth(3, 3)
    health.measure(sae, torch.rand(10, 3).bfloat16() + 0.1, np.ones(10, np.uint8))
    assert health.summary()["image"]["l0"] == 3
    assert health.summary()["all"]["fvu"] < 1e-9
