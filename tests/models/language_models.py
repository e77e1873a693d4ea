"""Tiny random language models of many architectures, saved with a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    OlmoConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

from raysae.models import load_hidden_state_model
from raysae.models.settings import ModelSettings
from raysae.sample import Message, Sample, TextPart
from tests.models.tiny import TEXT, TEXT_CHAT_TEMPLATE, build_tokenizer, randomised

WINDOW = 8
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 4}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
}
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**TEXT, **IDS),
    "llama-tied": LlamaConfig(**TEXT, **IDS, tie_word_embeddings=True),
    "mistral": MistralConfig(**TEXT, **IDS, sliding_window=None),
    "mistral-window": MistralConfig(**TEXT, **IDS, sliding_window=WINDOW),
    "qwen2": Qwen2Config(**TEXT, **IDS),
    "qwen2-window": Qwen2Config(
        **TEXT, **IDS, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "qwen3": Qwen3Config(**TEXT, **IDS, head_dim=8),
    "phi3": Phi3Config(**TEXT, **IDS),
    "phi3-longrope": Phi3Config(
        **TEXT, **IDS, rope_parameters=LONGROPE, original_max_position_embeddings=64
    ),
    "olmo": OlmoConfig(**TEXT, **IDS),
    "olmo2": Olmo2Config(**TEXT, **IDS),
    "gemma": GemmaConfig(**TEXT, **IDS, head_dim=8),
    "gemma2": Gemma2Config(**TEXT, **IDS, head_dim=8, sliding_window=WINDOW),
    "gemma3": Gemma3TextConfig(**TEXT, **IDS, head_dim=8, sliding_window=WINDOW),
    "granite": GraniteConfig(**TEXT, **IDS, embedding_multiplier=3.0, residual_multiplier=0.5),
    "smollm3": SmolLM3Config(**TEXT, **IDS),
    "cohere": CohereConfig(**TEXT, **IDS),
    "stablelm": StableLmConfig(**TEXT, **IDS),
    "starcoder2": Starcoder2Config(**TEXT, **IDS),
}
# What transformers itself runs eagerly only.
EAGER_ONLY = {"gemma2"}
TEXTS = [
    "What is in the picture? a cat",
    "A cat is what is in the picture, and not a dog, a hat or what else there may be in it.",
    "cat",
]


def build(name: str) -> Any:
    return randomised(lambda: AutoModelForCausalLM.from_config(CONFIGS[name]))


def save(model: Any, directory: Path, template: str | None = TEXT_CHAT_TEMPLATE) -> Path:
    model.save_pretrained(directory, max_shard_size="20KB")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return directory


def load(directory: Path, device: str = "cpu", **settings: Any) -> Any:
    attention = "eager" if directory.name in EAGER_ONLY else "sdpa"
    defaults = {"path": str(directory), "layer": 2, "attention": attention}
    return load_hidden_state_model(ModelSettings(**{**defaults, **settings}), device)


def said(text: str, name: str = "a", chosen: str | None = None) -> Sample:
    return Sample(name, 0, (Message("user", (TextPart(text),)),), (), chosen)


def whole_states(model: Any, ids: list[int], layer: int) -> torch.Tensor:
    """The output of block `layer` inside transformers' whole model, before any final norm."""
    seen: list[torch.Tensor] = []

    def record(_module: Any, _inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = model.model.layers[layer].register_forward_hook(record)
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
    handle.remove()
    return seen[0][0]
