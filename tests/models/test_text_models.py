from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel, Gemma3TextConfig, LlamaConfig, LlamaModel

from raysae.errors import SettingsError
from raysae.models.text_models import check_text_model
from tests.models.language_models import IDS
from tests.models.tiny import TEXT

SMALL = {**TEXT, **IDS, "num_hidden_layers": 2}


class Twice(LlamaModel):
    """Blocks whose output is changed on its way to the norm."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        handle = self.norm.register_forward_pre_hook(lambda _norm, inputs: (2 * inputs[0],))
        output = super().forward(*args, **kwargs)
        handle.remove()
        return output


class Scaled(LlamaModel):
    """A norm that is not the end."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.last_hidden_state = 2 * output.last_hidden_state
        return output


class Projected(LlamaModel):
    """Weights that no block has."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.extra = torch.nn.Linear(4, 4)


@pytest.mark.parametrize(
    "name", ["llama", "mistral", "qwen2", "qwen3", "phi3", "olmo", "gemma", "gemma2", "gemma3_text"]
)
def test_dense_decoders_pass(name: str) -> None:
    model = check_text_model(CONFIG_MAPPING[name](**SMALL), Path("here"))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt2", "lacks one of these parts"),
        ("opt", "lacks one of these parts"),
        ("phi", "lacks one of these parts"),
        ("mixtral", "experts or convolutions"),
        ("qwen3_next", "experts or convolutions"),
        ("gemma4_text", "with weights in embed_tokens_per_layer"),
        ("nanochat", "norm or last block runs more than once"),
        ("moshi", "without an intermediate_size"),
    ],
)
def test_others_do_not(name: str, message: str) -> None:
    config = CONFIG_MAPPING[name]()
    with pytest.raises(SettingsError, match=f"^model.path: here holds a '{name}'.*{message}"):
        check_text_model(config, Path("here"))


def test_tokens_that_see_those_after_them() -> None:
    config = Gemma3TextConfig(**SMALL, use_bidirectional_attention=True)
    with pytest.raises(SettingsError, match="see those after them"):
        check_text_model(config, Path("here"))
    config = LlamaConfig(**SMALL)
    config.is_causal = False
    with pytest.raises(SettingsError, match="see those after them"):
        check_text_model(config, Path("here"))


@pytest.mark.parametrize(
    ("model_class", "message"),
    [
        (Twice, "more than norm its last block's output"),
        (Scaled, "more than norm its last block's output"),
        (Projected, "with weights in extra"),
    ],
)
def test_ends_that_are_not_what_they_seem(
    model_class: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoModel, "from_config", lambda config, **_: model_class(config))
    with pytest.raises(SettingsError, match=message):
        check_text_model(LlamaConfig(**SMALL), Path("here"))
