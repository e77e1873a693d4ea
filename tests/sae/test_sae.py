"""Encode and decode, dense and sparse, against the slow twin; and the bound on memory."""

from typing import Any

import pytest
import torch

from raysae.errors import DataError, SettingsError
from raysae.sae import Sae
from tests.reference import sae as reference
from tests.sae.peak_memory import run_alone


def integer_sae(architecture: str, k: int = 0, dtype: torch.dtype = torch.float32) -> Sae:
    """An SAE of small integers: products are exact in every dtype, and ties abound."""
    generator = torch.Generator().manual_seed(1)

    def integers(*shape: int) -> torch.Tensor:
        return torch.randint(-2, 3, shape, generator=generator).to(dtype)

    return Sae(integers(6, 50), integers(50), integers(50, 6), integers(6), architecture, k)


def integer_acts(n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-3, 4, (n, 6), generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("architecture", "k"), [("relu", 0), ("topk", 7), ("topk", 50)])
def test_encode_equals_the_slow_twin(architecture: str, k: int, dtype: torch.dtype) -> None:
    sae, acts_nd = integer_sae(architecture, k, dtype), integer_acts(33)
    expected = reference.encode(
        acts_nd.double(),
        sae.W_enc.T.double(),
        sae.b_enc.double(),
        sae.b_dec.double(),
        architecture=architecture,
        k=k,
    )
    assert torch.equal(sae.encode(acts_nd).double(), expected)
    for blocks in ({}, {"feature_block": 8, "token_block": 5}, {"feature_block": 1}):
        codes = sae.encode_sparse(acts_nd, **blocks)
        assert torch.equal(codes.dense(33, 50).double(), expected)
        assert (codes.value_m > 0).all()
        key_m = codes.token_m.long() * 50 + codes.feature_m
        assert (key_m.diff() > 0).all()
        assert codes.token_m.dtype == codes.feature_m.dtype == torch.int32
        assert codes.value_m.dtype == torch.float32


@pytest.mark.parametrize(("architecture", "k"), [("relu", 0), ("topk", 7)])
def test_threshold(architecture: str, k: int) -> None:
    sae, acts_nd = integer_sae(architecture, k), integer_acts(33)
    z_nf = sae.encode(acts_nd)
    codes = sae.encode_sparse(acts_nd, threshold=4.0, feature_block=16)
    assert torch.equal(codes.dense(33, 50), z_nf * (z_nf > 4))


def test_decode() -> None:
    sae, acts_nd = integer_sae("topk", 7), integer_acts(33)
    acts_nd[5] = sae.b_dec  # with b_enc alone
    z_nf = sae.encode(acts_nd)
    z_nf[[4, 32]] = 0  # tokens without a code, one at the end
    expected = (z_nf @ sae.W_dec) + sae.b_dec
    assert torch.equal(sae.decode(z_nf), expected)
    codes = sae.encode_sparse(acts_nd)
    keep = (codes.token_m != 4) & (codes.token_m != 32)
    codes = type(codes)(codes.token_m[keep], codes.feature_m[keep], codes.value_m[keep])
    assert torch.equal(sae.decode_sparse(codes, 33), expected)


@pytest.mark.parametrize(("architecture", "k"), [("relu", 0), ("topk", 3)])
def test_no_tokens_and_no_active_feature(architecture: str, k: int) -> None:
    sae = integer_sae(architecture, k)
    assert len(sae.encode_sparse(torch.zeros(0, 6))) == 0
    silent = Sae(sae.W_enc, sae.b_enc - 1e4, sae.W_dec, sae.b_dec, architecture, k)
    codes = silent.encode_sparse(integer_acts(4))
    assert len(codes) == 0
    assert torch.equal(silent.decode_sparse(codes, 4), sae.b_dec.expand(4, 6))


def test_bfloat16_inputs_with_float32_weights() -> None:
    sae, acts_nd = integer_sae("topk", 5), integer_acts(9)
    assert torch.equal(sae.encode(acts_nd.bfloat16()), sae.encode(acts_nd))


def test_to() -> None:
    sae = integer_sae("topk", 5).to(dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)} == {
        torch.bfloat16
    }
    assert (sae.d_in, sae.d_sae, sae.k) == (6, 50, 5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"architecture": "gated"}, SettingsError, "architecture"),
        ({"b_enc": torch.zeros(3)}, DataError, "shapes"),
        ({"k": 51}, DataError, "k = 51"),
        ({"k": 0}, DataError, "k = 0"),
    ],
)
def test_impossible_saes(change: dict[str, Any], error: type[Exception], message: str) -> None:
    sae = integer_sae("topk", 5)
    with pytest.raises(error, match=message):
        Sae(**(vars(sae) | change))


def test_wrong_width_is_named() -> None:
    with pytest.raises(DataError, match=r"\(3, 5\).*\(tokens, 6\)"):
        integer_sae("relu").encode_sparse(torch.zeros(3, 5))


MEASURE = """
import torch
from raysae.sae import Sae
from tests.sae.peak_memory import peak_bytes
d_in, d_sae, n = 512, 65_536, 2928
W = torch.full((d_sae, d_in), 1e-3)
sae = Sae(W.T, torch.linspace(1, 2, d_sae), W, torch.zeros(d_in), "topk", 32)
acts = torch.empty(n, d_in, dtype=torch.bfloat16).normal_()
sae.encode_sparse(acts[:2], token_block=2)
before = peak_bytes()
codes = sae.encode_sparse(acts)
print(peak_bytes() - before, len(codes))
"""


def test_memory_is_bounded_at_full_size() -> None:
    """SAE-V's size and LLaVA-NeXT's largest sample: dense codes would take 767 MB."""
    grown, n_codes = run_alone(MEASURE)
    assert 0 < n_codes <= 2928 * 32
    assert 0 < grown < 150 << 20
