"""What the vision-language models share in loading and planning."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from raysae.errors import DataError, SettingsError
from raysae.models.checkpoint import stored_tensors, weight_files
from raysae.models.plan import (
    BYTES_PER_NUMBER,
    Blocks,
    ForwardPlan,
    ModelSize,
    text_blocks,
    vision_blocks,
    weight_memory,
)
from raysae.models.processors import load_image_processor, load_processor
from raysae.models.settings import ModelSettings
from raysae.models.text_models import check_text_model
from raysae.models.text_plan import text_activation_bytes
from raysae.models.truncated import (
    IN_VISION_MODEL,
    build_truncated,
    check_unquantised,
    cut_text_config,
    load_truncated,
)
from raysae.models.vision import VisionDecoder

_TOWER_BLOCK = re.compile(r"(?:^|\.)vision_tower\.(?:\w+\.)*layers\.(\d+)\.")


def read_vision_config(config_class: Any, settings: ModelSettings, directory: Path) -> Any:
    """Read a configuration, cut to the text blocks and the tower's blocks that are needed.

    Raises:
        SettingsError: The model has no block `settings.layer`, or it is of a kind that is not read.
        DataError: It reads a layer of its tower that is not there.
    """
    config = config_class.from_pretrained(directory, local_files_only=True)
    check_unquantised(config, directory)
    tower = config.vision_config.model_type
    if tower != "clip_vision_model":
        raise SettingsError(
            f"model.path: {directory} sees through a {tower!r} tower, but raysae reads "
            f"{config.model_type} with CLIP's; name another."
        )
    _cut_tower(config, directory)
    cut_text_config(config.text_config, settings.layer)
    check_text_model(config.text_config, directory, settings.attention)
    return config


def _cut_tower(config: Any, directory: Path) -> None:
    """Cut the tower to the blocks whose states are read, in place, and count these from its start.

    `vision_feature_layer` becomes a list, as it may be in a checkpoint. State 0 is what goes into
    block 0; the published models read the last but one (-2).

    Raises:
        DataError: It has no such state.
    """
    states = config.vision_config.num_hidden_layers + 1
    layers = config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else layers
    if not all(-states <= layer < states for layer in layers):
        raise DataError(
            f"{directory} reads the states {layers} of a vision tower that has {states}; correct "
            "vision_feature_layer in its config.json."
        )
    read = [layer % states for layer in layers]
    # Without a block transformers would return no states at all.
    config.vision_config.num_hidden_layers = max(1, *read)
    config.vision_feature_layer = read


def _needed(config: Any) -> Callable[[str], bool]:
    """Return a test by a tensor's name in the checkpoint: is it needed for a cut configuration?"""
    in_text = IN_VISION_MODEL.needed_up_to(config.text_config.num_hidden_layers - 1)
    blocks = config.vision_config.num_hidden_layers

    def needed(name: str) -> bool:
        block = _TOWER_BLOCK.search(name)
        return in_text(name) and (block is None or int(block.group(1)) < blocks)

    return needed


class Classes(NamedTuple):
    """What an architecture is made of.

    Attributes:
        model: transformers' model without a head.
        processor: transformers' processor.
        decoder: Ours, of settings, model, processor and directory.
    """

    model: Any
    processor: Any
    decoder: Callable[[ModelSettings, Any, Any, Path], VisionDecoder]


def load_vision_language(
    classes: Classes,
    config: Any,
    settings: ModelSettings,
    directory: Path,
    device: torch.device,
) -> VisionDecoder:
    """Load a vision-language model up to block `settings.layer`; see `load_hidden_state_model`.

    Args:
        classes: What the architecture is made of.
        config: As `read_vision_config` returns it.
        settings: What is read, and how it is shown.
        directory: The model.
        device: Where the weights go.
    """
    processor = load_processor(classes.processor, directory)
    processor.image_processor = load_image_processor(processor.image_processor, settings, directory)
    dtype = getattr(torch, settings.dtype)
    if device.type == "meta":
        model = build_truncated(classes.model, config, IN_VISION_MODEL, dtype)
    else:
        model = load_truncated(
            classes.model,
            config,
            directory,
            text=IN_VISION_MODEL,
            needed=_needed(config),
            dtype=dtype,
            attention=settings.attention,
        ).to(device)
    return classes.decoder(settings, model, processor, directory)


@dataclass(frozen=True)
class ImageExtremes:
    """What the images of a prompt can cost at worst.

    Attributes:
        tokens: Most tokens of an image.
        tiles: Most tiles of an image.
        tiles_per_token: Most tiles per token, over all shapes of an image.
    """

    tokens: int
    tiles: int
    tiles_per_token: float


NO_IMAGES = ImageExtremes(0, 0, 0.0)
"""Where the prompts show none."""


def plan_vision_language(
    settings: ModelSettings,
    config: Any,
    directory: Path,
    extremes: ImageExtremes,
    token_budget: int,
) -> ForwardPlan:
    """Predict a batch's cost from the configuration and the files' headers.

    Activations are the larger of two phases: the text blocks (see `text_activation_bytes`), or, for
    the most tiles that the budget can hold, the tower.

    Args:
        settings: What is read, and how it is shown.
        config: As `read_vision_config` returns it.
        directory: The model.
        extremes: Of an image that is shown.
        token_budget: Padded tokens of a batch.
    """
    if settings.images == "drop":
        extremes = NO_IMAGES
    size = BYTES_PER_NUMBER[settings.dtype]
    text, vision = text_blocks(config.text_config), vision_blocks(config.vision_config)
    positions = (config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1
    n_tiles = extremes.tiles + math.ceil(token_budget * extremes.tiles_per_token)
    tower_bytes = n_tiles * _tile_numbers(config.vision_config, vision, positions) * size
    weight_bytes, load_bytes = weight_memory(
        stored_tensors(weight_files(directory, _needed(config))), settings.dtype
    )
    projector = len(config.vision_feature_layer) * vision.d * text.d + text.d**2
    return ForwardPlan(
        d_in=text.d,
        weight_bytes=weight_bytes,
        load_bytes=load_bytes,
        activation_bytes=max(
            text_activation_bytes(
                settings, config.text_config, text, extremes.tokens, token_budget
            ),
            tower_bytes + token_budget * text.d * size,
        ),
        bytes_per_token=text.d * size,
        max_image_tokens=extremes.tokens,
        max_image_tiles=extremes.tiles,
        text=text,
        flops_per_tile=positions * vision.flops(positions) + positions * 2 * projector,
    )


def _tile_numbers(config: Any, vision: Blocks, positions: int) -> int:
    """Return the numbers that one tile needs: the tower's states, a block's peak, pixels twice.

    All states of the tower count: some versions of transformers keep them.
    """
    per_position = (vision.n + 1) * vision.d + vision.activation_numbers()
    return positions * per_position + 2 * 3 * int(config.image_size) ** 2


def vision_language_size(config_class: Any, directory: Path) -> ModelSize:
    """Count the whole model's numbers, from the configuration and the files' headers."""
    config = config_class.from_pretrained(directory, local_files_only=True)
    everything = stored_tensors(weight_files(directory, lambda _: True))
    tower = stored_tensors(weight_files(directory, lambda name: "vision_tower." in name))
    return ModelSize(
        sum(tensor.numbers for tensor in everything),
        sum(tensor.numbers for tensor in tower),
        text_blocks(config.text_config),
    )
