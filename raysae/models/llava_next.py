"""LLaVA-NeXT (`model_type` `llava_next`): loading and predicting it.

CLIP tower, projector, newline vector, and whatever decoder-only text model the configuration names.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from raysae.errors import SettingsError
from raysae.models.anyres import anyres_grid
from raysae.models.base import HiddenStateModel
from raysae.models.checkpoint import count_numbers, weight_files
from raysae.models.llava_next_model import LlavaNext
from raysae.models.plan import (
    BYTES_PER_NUMBER,
    ForwardPlan,
    ModelSize,
    text_blocks,
    vision_blocks,
    weight_memory,
)
from raysae.models.processors import load_image_processor, load_processor
from raysae.models.settings import ModelSettings
from raysae.models.truncated import cut_text_config, load_truncated, needed_up_to

_TEXT_TOKENS = 256
"""Text beside the largest image that the plan of an eager attention matrix allows for."""


def load(settings: ModelSettings, directory: Path, device: torch.device) -> HiddenStateModel:
    """Load LLaVA-NeXT up to block `settings.layer`; see `load_hidden_state_model`."""
    from transformers import LlavaNextModel, LlavaNextProcessor

    config = read_config(settings, directory)
    processor = load_processor(LlavaNextProcessor, directory)
    processor.image_processor = load_image_processor("llava_next", settings, directory)
    dtype = getattr(torch, settings.dtype)
    if device.type == "meta":
        with device:
            return LlavaNext(settings, LlavaNextModel(config).to(dtype), processor)
    model = load_truncated(LlavaNextModel, config, directory, dtype, settings.attention)
    return LlavaNext(settings, model.to(device), processor)


def read_config(settings: ModelSettings, directory: Path) -> Any:
    """Read the configuration, cut to the text blocks that are needed.

    Raises:
        SettingsError: The model has no block `settings.layer`, or its image grids are no grids.
    """
    from transformers import LlavaNextConfig

    config = LlavaNextConfig.from_pretrained(directory, local_files_only=True)
    cut_text_config(config, settings.layer)
    tile = config.vision_config.image_size
    if any(edge % tile for grid in config.image_grid_pinpoints for edge in grid):
        raise SettingsError(
            f"model.path: {directory} has image grids {config.image_grid_pinpoints}, which are no "
            f"multiples of its tower's {tile} pixels; correct its config.json."
        )
    return config


def plan(settings: ModelSettings, directory: Path, token_budget: int) -> ForwardPlan:
    """Predict a batch's cost from the configuration and the files' headers.

    Activations are the larger of two phases. Text: a block's peak on every padded token, the merged
    embeddings beside it; with `eager` also three copies of one row of the attention matrix (scores,
    float32 softmax, weights). Vision: for the most tiles that the budget can hold, all states
    of the tower (some versions of transformers keep them), a block's peak, and the pixels twice.
    """
    config = read_config(settings, directory)
    size = BYTES_PER_NUMBER[settings.dtype]
    text, vision = text_blocks(config.text_config), vision_blocks(config.vision_config)
    side = config.vision_config.image_size // config.vision_config.patch_size
    max_tokens, max_tiles, tiles_per_token = _image_extremes(config)

    per_token = (text.d + text.activation_numbers()) * size
    if settings.attention == "eager":
        per_token += text.heads * (max_tokens + _TEXT_TOKENS) * (2 * size + 4)
    text_bytes = token_budget * per_token

    n_tiles = max_tiles + math.ceil(token_budget * tiles_per_token)
    per_patch = (vision.n + 1) * vision.d + vision.activation_numbers()
    per_tile = (side**2 + 1) * per_patch + 2 * 3 * config.vision_config.image_size**2
    vision_bytes = (n_tiles * per_tile + token_budget * text.d) * size

    stored = count_numbers(weight_files(directory, needed_up_to(settings.layer)))
    weight_bytes, load_bytes = weight_memory(stored, settings.dtype)
    projector = vision.d * text.d + text.d**2
    return ForwardPlan(
        d_in=text.d,
        weight_bytes=weight_bytes,
        load_bytes=load_bytes,
        activation_bytes=max(text_bytes, vision_bytes),
        bytes_per_token=text.d * size,
        max_image_tokens=max_tokens,
        max_image_tiles=max_tiles,
        text=text,
        flops_per_tile=(side**2 + 1) * vision.flops(side**2 + 1) + side**2 * 2 * projector,
    )


def size(directory: Path) -> ModelSize:
    """Count the whole model's numbers, from the configuration and the files' headers."""
    from transformers import LlavaNextConfig

    config = LlavaNextConfig.from_pretrained(directory, local_files_only=True)
    everything = count_numbers(weight_files(directory, lambda _: True))
    tower = count_numbers(weight_files(directory, lambda name: "vision_tower." in name))
    return ModelSize(sum(everything.values()), sum(tower.values()), text_blocks(config.text_config))


def _image_extremes(config: Any) -> tuple[int, int, float]:
    """Return the most tokens and tiles of an image, and the most tiles per token, by trying shapes.

    Aspect ratios from 1:6 to 6:1 in steps of about 2 %, at a size that fills any grid.
    """
    tile, patch = config.vision_config.image_size, config.vision_config.patch_size
    shapes = [(round(4096 * 6**-r), 4096) for r in (step / 90 for step in range(91))]
    grids = [
        anyres_grid(height, width, config.image_grid_pinpoints, tile, patch)
        for a, b in shapes
        for height, width in ((a, b), (b, a))
    ]
    return (
        max(grid.n_tokens for grid in grids),
        max(grid.n_tiles for grid in grids),
        max(grid.n_tiles / grid.n_tokens for grid in grids),
    )
