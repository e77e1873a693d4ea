"""Architectures by `config.model_type`: a new one is a module as `Architecture` says, and a row."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch

from raysae.errors import SettingsError
from raysae.models.base import HiddenStateModel
from raysae.models.checkpoint import model_directory, model_type
from raysae.models.plan import ForwardPlan, ModelSize
from raysae.models.settings import ModelSettings

ARCHITECTURES = {
    "llava": "raysae.models.llava",
    "llava_next": "raysae.models.llava_next",
}
"""Module of each architecture, imported when it is asked for: transformers is slow to import."""

CAUSAL_LM = "raysae.models.causal_lm"
"""Module of all that transformers knows as causal language models and the table does not name."""


class Architecture(Protocol):
    """What an architecture's module offers."""

    def load(
        self, settings: ModelSettings, directory: Path, device: torch.device
    ) -> HiddenStateModel:
        """Load the model up to block `settings.layer`."""
        ...

    def plan(self, settings: ModelSettings, directory: Path, token_budget: int) -> ForwardPlan:
        """Predict the cost of a batch."""
        ...

    def size(self, directory: Path) -> ModelSize:
        """Count the whole model's numbers."""
        ...


def load_hidden_state_model(
    settings: ModelSettings, device: str | torch.device = "cpu"
) -> HiddenStateModel:
    """Load a model cut after block `settings.layer`, without its head, ready to run.

    Only the safetensors files that hold a needed tensor are opened; no remote code is run.

    Args:
        settings: Which model and how.
        device: Where the weights go: `cpu`, `cuda`, `cuda:1`. `meta` reads no weights at all: such
            a model prepares samples, places patches and decodes tokens, but cannot run.

    Raises:
        SettingsError: The path, the architecture, the layer or the image backend cannot be used.
        DataError: The weights are damaged or incomplete; the message names what is missing.
    """
    architecture, directory = _architecture(settings.path)
    return architecture.load(settings.with_layer, directory, torch.device(device))


def plan_cache_memory(settings: ModelSettings, token_budget: int) -> ForwardPlan:
    """Predict memory and floating-point work of a forward pass, reading headers alone.

    Args:
        settings: Which model and how.
        token_budget: Padded tokens of a batch.

    Raises:
        SettingsError: As `load_hidden_state_model`.
        DataError: A safetensors file is damaged.
    """
    architecture, directory = _architecture(settings.path)
    return architecture.plan(settings.with_layer, directory, token_budget)


def model_size(path: str) -> ModelSize:
    """Count a whole model's numbers, reading headers alone.

    Args:
        path: As in `ModelSettings.path`.

    Raises:
        SettingsError: The path or the architecture cannot be used.
        DataError: A safetensors file is damaged.
    """
    architecture, directory = _architecture(path)
    return architecture.size(directory)


def _architecture(path: str) -> tuple[Architecture, Path]:
    directory = model_directory(path)
    name = model_type(directory)
    module = ARCHITECTURES.get(name) or (CAUSAL_LM if _is_causal_lm(name) else None)
    if module is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise SettingsError(
            f"model.path: {directory} is a {name!r} model, but raysae reads {known} and "
            "transformers' causal language models; name another."
        )
    return cast("Architecture", import_module(module)), directory


def _is_causal_lm(name: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
