"""SAEs on disk: SAELens opens ours and encodes alike, and what we cannot read is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysae.errors import DataError
from raysae.sae import Sae, load_saelens, save_saelens


def random_sae(architecture: str, dtype: torch.dtype = torch.float32) -> Sae:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    k = 7 if architecture == "topk" else 0
    # W_enc as the trainer returns it: a transposed view.
    return Sae(random(40, 8).T, random(40), random(40, 8), random(8), architecture, k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["relu", "topk"])
def test_round_trip(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    sae = random_sae(architecture, dtype)
    save_saelens(
        sae, tmp_path / "new", {"model_name": "m", "hook_name": "blocks.3.hook_resid_post"}
    )
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "cfg.json",
        "sae_weights.safetensors",
    ]
    again = load_saelens(tmp_path / "new")
    assert (again.architecture, again.k) == (sae.architecture, sae.k)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(again, name), getattr(sae, name))
        assert getattr(again, name).dtype == dtype


@pytest.mark.parametrize("architecture", ["relu", "topk"])
def test_sae_lens_opens_it_and_encodes_alike(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sae_lens = pytest.importorskip("sae_lens")
    sae = random_sae(architecture)
    save_saelens(sae, tmp_path, {"model_name": "builtin", "hook_name": "blocks.3.hook_resid_post"})
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path))
    acts_nd = torch.randn(50, 8)
    z_nf = theirs.encode(acts_nd)
    torch.testing.assert_close(sae.encode(acts_nd), z_nf)
    torch.testing.assert_close(sae.encode_sparse(acts_nd).dense(50, 40), z_nf)
    torch.testing.assert_close(sae.decode(sae.encode(acts_nd)), theirs.decode(z_nf))
    assert theirs.cfg.metadata.model_name == "builtin"


@pytest.mark.parametrize("architecture", ["relu", "topk"])
def test_what_sae_lens_writes_is_read(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("sae_lens")
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    if architecture == "relu":
        theirs = StandardSAE(StandardSAEConfig(d_in=8, d_sae=40, apply_b_dec_to_input=False))
    else:
        theirs = TopKSAE(TopKSAEConfig(d_in=8, d_sae=40, k=7))
    theirs.b_enc.data.normal_()
    theirs.b_dec.data.normal_()
    theirs.save_model(tmp_path)
    acts_nd = torch.randn(50, 8)
    torch.testing.assert_close(
        load_saelens(tmp_path).encode(acts_nd), theirs.encode(acts_nd).detach()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "gated"}, "architecture 'gated'"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm'"),
        ({"apply_b_dec_to_input": False}, "apply_b_dec_to_input = False"),
        ({"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm = True"),
        ({"k": 41}, "k = 41"),
        ({"k": None}, "k is None"),
        ({"k": "7"}, "k is '7'"),
        ({"architecture": ["topk"]}, "architecture"),
    ],
)
def test_what_cannot_be_read_is_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_saelens(random_sae("topk"), tmp_path, {})
    config = json.loads((tmp_path / "cfg.json").read_text()) | change
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        load_saelens(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("W_enc", lambda t: t[0], "W_enc has the shape"),
        ("W_dec", lambda t: t[:, :-1], "W_dec has the shape"),
        ("b_enc", lambda t: t[None], "b_enc has the shape"),
        ("W_dec", lambda t: t.long(), "not one floating type"),
        ("b_dec", lambda t: t.half(), "not one floating type"),
        ("W_enc", lambda t: t / 0, "W_enc holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str, tmp_path: Path
) -> None:
    save_saelens(random_sae("topk"), tmp_path, {})
    file = tmp_path / "sae_weights.safetensors"
    tensors = load_file(file)
    save_file(tensors | {name: change(tensors[name]).contiguous()}, file)
    with pytest.raises(DataError, match=message):
        load_saelens(tmp_path)


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cfg\.json"):
        load_saelens(tmp_path / "nowhere")
    save_saelens(random_sae("topk"), tmp_path, {})
    weights = tmp_path / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read as an SAE"):
        load_saelens(tmp_path)
    save_saelens(random_sae("topk"), tmp_path, {})
    (tmp_path / "cfg.json").write_text("[]")
    with pytest.raises(DataError, match="no JSON object"):
        load_saelens(tmp_path)
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as an SAE"):
        load_saelens(tmp_path)
