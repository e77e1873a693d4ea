"""The presets hold the published numbers and are valid settings."""

from importlib.resources import files

import pytest
import yaml

from raysae.sae import SaeSettings


def preset(name: str) -> SaeSettings:
    text = files("raysae").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")
    return SaeSettings(**yaml.safe_load(text)["sae"])


@pytest.mark.parametrize(("name", "d_sae"), [("llava-next", 65_536), ("chameleon", 131_072)])
def test_sae_v(name: str, d_sae: int) -> None:
    settings = preset(f"sae-v-{name}")
    assert settings.architecture == "relu"
    assert settings.d_sae == d_sae
    assert settings.steps * settings.batch_tokens == 122_880_000
    assert (settings.l1_coefficient, settings.l1_warmup_steps) == (5.0, 1500)
    assert (settings.peak_lr, settings.lr_warmup_steps, settings.lr_decay_steps) == (5e-5, 0, 6000)


def test_topk() -> None:
    settings = preset("topk")
    assert (settings.architecture, settings.k, settings.aux_coefficient) == ("topk", 32, 1 / 32)
    assert settings.peak_lr == pytest.approx(1e-4)
