"""Causal language models without eyes (Llama, Mistral, Qwen, …): loading and predicting them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from raysae.errors import SettingsError
from raysae.models.base import HiddenStateModel
from raysae.models.checkpoint import stored_tensors, weight_files
from raysae.models.decoder import Decoder
from raysae.models.plan import (
    BYTES_PER_NUMBER,
    Blocks,
    ForwardPlan,
    ModelSize,
    text_blocks,
    weight_memory,
)
from raysae.models.processors import Tokenizer, chat_template, load_processor
from raysae.models.settings import ModelSettings
from raysae.models.text_models import check_text_model
from raysae.models.text_plan import text_activation_bytes
from raysae.models.truncated import (
    ALONE,
    build_truncated,
    check_unquantised,
    cut_text_config,
    load_truncated,
)


def load(settings: ModelSettings, directory: Path, device: torch.device) -> HiddenStateModel:
    """Load a language model up to block `settings.layer`; see `load_hidden_state_model`."""
    from transformers import AutoTokenizer

    config, skeleton = _read(settings, directory)
    tokenizer = load_processor(AutoTokenizer, directory)
    template = chat_template(tokenizer, settings, directory)
    dtype = getattr(torch, settings.dtype)
    if device.type == "meta":
        model = build_truncated(type(skeleton), config, ALONE, dtype)
    else:
        model = load_truncated(
            type(skeleton),
            config,
            directory,
            text=ALONE,
            needed=ALONE.needed_up_to(settings.layer),
            dtype=dtype,
            attention=settings.attention,
        ).to(device)
    return Decoder(settings, model, model, Tokenizer(tokenizer), template)


def plan(settings: ModelSettings, directory: Path, token_budget: int) -> ForwardPlan:
    """Predict a batch's cost from the configuration and the files' headers."""
    config, skeleton = _read(settings, directory)
    blocks = _blocks(config, skeleton)
    stored = stored_tensors(weight_files(directory, ALONE.needed_up_to(settings.layer)))
    weight_bytes, load_bytes = weight_memory(stored, settings.dtype)
    return ForwardPlan(
        d_in=blocks.d,
        weight_bytes=weight_bytes,
        load_bytes=load_bytes,
        activation_bytes=text_activation_bytes(settings, config, blocks, 0, token_budget),
        bytes_per_token=blocks.d * BYTES_PER_NUMBER[settings.dtype],
        max_image_tokens=0,
        max_image_tiles=0,
        text=blocks,
        flops_per_tile=0.0,
    )


def size(directory: Path) -> ModelSize:
    """Count the whole model's numbers."""
    config = _config(directory)
    everything = stored_tensors(weight_files(directory, lambda _: True))
    blocks = _blocks(config, check_text_model(config, directory))
    return ModelSize(sum(tensor.numbers for tensor in everything), 0, blocks)


def _read(settings: ModelSettings, directory: Path) -> tuple[Any, Any]:
    """Read the configuration, cut to the blocks that are needed, and build it without weights.

    Raises:
        SettingsError: The model has no block `settings.layer`, or it is of a kind that is not read.
    """
    config = _config(directory)
    cut_text_config(config, settings.layer)
    return config, check_text_model(config, directory, settings.attention)


def _config(directory: Path) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    check_unquantised(config, directory)
    if getattr(config, "num_hidden_layers", None) is None:
        raise SettingsError(
            f"model.path: {directory} is a {config.model_type!r} model of several parts, of which "
            "raysae can read none by itself; name a text model."
        )
    return config


def _blocks(config: Any, skeleton: Any) -> Blocks:
    """Read the blocks; whether the MLP has a gate, only its matrices tell."""
    blocks = text_blocks(config)
    matrices = sum(p.numel() for p in skeleton.layers.parameters() if p.ndim == 2)
    return blocks if matrices >= blocks.parameters else replace(blocks, gated=False)
