"""LLaVA-NeXT (`model_type` `llava_next`): loading and predicting it.

CLIP tower, projector, newline vector, and whatever decoder-only text model the configuration names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from raysae.errors import SettingsError
from raysae.models.anyres import anyres_grid
from raysae.models.base import HiddenStateModel
from raysae.models.llava_next_model import LlavaNext
from raysae.models.plan import ForwardPlan, ModelSize
from raysae.models.settings import ModelSettings
from raysae.models.vision_language import (
    Classes,
    ImageExtremes,
    load_vision_language,
    plan_vision_language,
    read_vision_config,
    vision_language_size,
)


def load(settings: ModelSettings, directory: Path, device: torch.device) -> HiddenStateModel:
    """Load LLaVA-NeXT up to block `settings.layer`; see `load_hidden_state_model`."""
    from transformers import LlavaNextModel, LlavaNextProcessor

    config = read_config(settings, directory)
    classes = Classes(LlavaNextModel, LlavaNextProcessor, LlavaNext)
    return load_vision_language(classes, config, settings, directory, device)


def read_config(settings: ModelSettings, directory: Path) -> Any:
    """Read the configuration, cut to the text blocks that are needed.

    Raises:
        SettingsError: As `read_vision_config`; or the model's image grids are no grids; or its
            class tokens, which have no place in a grid, are to be shown.
    """
    from transformers import LlavaNextConfig

    config = read_vision_config(LlavaNextConfig, settings, directory)
    tile = config.vision_config.image_size
    if any(edge % tile for grid in config.image_grid_pinpoints for edge in grid):
        raise SettingsError(
            f"model.path: {directory} has image grids {config.image_grid_pinpoints}, which are no "
            f"multiples of its tower's {tile} pixels; correct its config.json."
        )
    if config.vision_feature_select_strategy != "default":
        raise SettingsError(
            f"model.path: {directory} has vision_feature_select_strategy "
            f"{config.vision_feature_select_strategy!r}, but tiles are joined by their patches "
            "alone; set it to 'default' in its config.json."
        )
    return config


def plan(settings: ModelSettings, directory: Path, token_budget: int) -> ForwardPlan:
    """Predict a batch's cost; see `plan_vision_language`."""
    config = read_config(settings, directory)
    return plan_vision_language(settings, config, directory, _image_extremes(config), token_budget)


def size(directory: Path) -> ModelSize:
    """Count the whole model's numbers."""
    from transformers import LlavaNextConfig

    return vision_language_size(LlavaNextConfig, directory)


def _image_extremes(config: Any) -> ImageExtremes:
    """Find the extremes by trying shapes.

    Aspect ratios from 1:6 to 6:1 in steps of about 2 %, at a size that fills any grid.
    """
    tile, patch = config.vision_config.image_size, config.vision_config.patch_size
    shapes = [(round(4096 * 6**-r), 4096) for r in (step / 90 for step in range(91))]
    grids = [
        anyres_grid(height, width, config.image_grid_pinpoints, tile, patch)
        for a, b in shapes
        for height, width in ((a, b), (b, a))
    ]
    return ImageExtremes(
        max(grid.n_tokens for grid in grids),
        max(grid.n_tiles for grid in grids),
        max(grid.n_tiles / grid.n_tokens for grid in grids),
    )
