"""LLaVA-1.5 (`model_type` `llava`): loading and predicting it.

CLIP tower, projector, and whatever decoder-only text model the configuration names.
"""

from __future__ import annotations

from pathlib import Path

import torch

from raysae.models.base import HiddenStateModel
from raysae.models.llava_model import Llava
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
    """Load LLaVA-1.5 up to block `settings.layer`; see `load_hidden_state_model`."""
    from transformers import LlavaConfig, LlavaModel, LlavaProcessor

    config = read_vision_config(LlavaConfig, settings, directory)
    classes = Classes(LlavaModel, LlavaProcessor, Llava)
    return load_vision_language(classes, config, settings, directory, device)


def plan(settings: ModelSettings, directory: Path, token_budget: int) -> ForwardPlan:
    """Predict a batch's cost; see `plan_vision_language`."""
    from transformers import LlavaConfig

    config = read_vision_config(LlavaConfig, settings, directory)
    tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    tokens += config.vision_feature_select_strategy == "full"
    extremes = ImageExtremes(tokens, 1, 1 / tokens)
    return plan_vision_language(settings, config, directory, extremes, token_budget)


def size(directory: Path) -> ModelSize:
    """Count the whole model's numbers."""
    from transformers import LlavaConfig

    return vision_language_size(LlavaConfig, directory)
