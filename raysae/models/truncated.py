"""Load the first blocks of a transformers model, and nothing else of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from raysae.errors import DataError, SettingsError
from raysae.models.checkpoint import read_tensors, weight_files

# The published names (`language_model.model.layers.0`) and newer (`model.language_model.layers.0`).
_BLOCK = re.compile(r"(?:^|\.)language_model\.(?:model\.)?layers\.(\d+)\.")
_AFTER_BLOCKS = re.compile(r"(?:^|\.)(?:lm_head|language_model\.(?:model\.)?norm)\.")
# Buffers that older versions stored and newer ones compute.
_BUFFER = re.compile(r"\.(?:position_ids|inv_freq)$")

FINAL_NORM = "language_model.norm."
"""Prefix of the one module that is not loaded but replaced."""


def needed_up_to(layer: int) -> Callable[[str], bool]:
    """Return a test by a tensor's name in the checkpoint: is it needed for block `layer`?"""

    def needed(name: str) -> bool:
        block = _BLOCK.search(name)
        if block is not None:
            return int(block.group(1)) <= layer
        return _AFTER_BLOCKS.search(name) is None and _BUFFER.search(name) is None

    return needed


def cut_text_config(config: Any, layer: int) -> None:
    """Cut a vision-language configuration to `layer + 1` text blocks, in place.

    Raises:
        SettingsError: The model has no such block.
    """
    blocks = config.text_config.num_hidden_layers
    if not 0 <= layer < blocks:
        raise SettingsError(
            f"model.layer: {layer} is not one of the model's blocks; choose 0 to {blocks - 1}."
        )
    config.text_config.num_hidden_layers = layer + 1
    if getattr(config.text_config, "layer_types", None):
        config.text_config.layer_types = config.text_config.layer_types[: layer + 1]


def load_truncated(
    model_class: Any, config: Any, directory: Path, dtype: torch.dtype, attention: str
) -> Any:
    """Load a headless vision-language model whose text blocks end where the configuration says.

    transformers renames the checkpoint's keys. The final norm becomes the identity, so that
    `last_hidden_state` is the last block's `resid_post`.

    Args:
        model_class: A transformers model class with `language_model` and without a head.
        config: Its configuration after `cut_text_config`.
        directory: The checkpoint.
        dtype: Format that the weights are converted to.
        attention: `sdpa` or `eager`.

    Raises:
        DataError: Tensors are missing, of another shape, or unknown; the message names them.
    """
    layer = config.text_config.num_hidden_layers - 1
    tensors = read_tensors(weight_files(directory, needed_up_to(layer)))
    with _quiet_transformers():
        try:
            # Without a path nothing but these tensors can be read: no adapter, no remote code.
            model, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                attn_implementation=attention,
                use_safetensors=True,
                output_loading_info=True,
            )
        except RuntimeError as error:
            raise DataError(
                f"the weights in {directory} do not fit its config.json ({error}); copy the model "
                "again."
            ) from error
    missing = {name for name in info["missing_keys"] if not name.startswith(FINAL_NORM)}
    _refuse(directory, "lacks", missing)
    _refuse(directory, "has unknown", set(info["unexpected_keys"]))
    model.language_model.norm = torch.nn.Identity()
    return model.eval().requires_grad_(requires_grad=False)


def _refuse(directory: Path, what: str, names: set[str]) -> None:
    if names:
        shown = ", ".join(sorted(names)[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise DataError(
            f"{directory} {what} tensors: {shown}{more}; a model with them left out or at random "
            "is not the published one, so copy or convert the model again."
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence the loading report and bar: every finding in it is raised as an error here."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
