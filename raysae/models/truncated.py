"""Load the first blocks of a transformers model, and nothing else of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raysae.errors import DataError, SettingsError
from raysae.models.checkpoint import read_tensors, weight_files
from raysae.models.settings import UNNAMED

# Buffers that older versions stored and newer ones compute.
_BUFFER = re.compile(r"\.(?:position_ids|inv_freq)$")


@dataclass(frozen=True)
class TextModule:
    """Where a headless model keeps the text model that is cut, and what checkpoints call it.

    Attributes:
        module: Its name in transformers' headless model; empty if it is the model itself.
        prefix: Regular expression of what stands before its tensors' names in a checkpoint.
    """

    module: str
    prefix: str

    def needed_up_to(self, layer: int) -> Callable[[str], bool]:
        """Return a test by a tensor's name in the checkpoint: is it needed for block `layer`?"""
        block_name = re.compile(rf"{self.prefix}layers\.(\d+)\.")
        after_blocks = re.compile(rf"(?:^|\.)lm_head\.|{self.prefix}norm\.")

        def needed(name: str) -> bool:
            block = block_name.search(name)
            if block is not None:
                return int(block.group(1)) <= layer and _BUFFER.search(name) is None
            return after_blocks.search(name) is None and _BUFFER.search(name) is None

        return needed

    def of(self, model: Any) -> Any:
        """Return the text model itself."""
        return getattr(model, self.module) if self.module else model

    @property
    def final_norm(self) -> str:
        """Prefix, in the headless model, of the one module that is not loaded but replaced."""
        return f"{self.module}.norm." if self.module else "norm."


IN_VISION_MODEL = TextModule("language_model", r"(?:^|\.)language_model\.(?:model\.)?")
"""Published names (`language_model.model.layers.0`), newer (`model.language_model.layers.0`)."""

ALONE = TextModule("", r"^(?:model\.)?")
"""A causal language model's names, `model.layers.0`; saved without its head, `layers.0`."""


def cut_text_config(config: Any, layer: int) -> None:
    """Cut a text configuration to `layer + 1` blocks, in place.

    Raises:
        SettingsError: The model has no such block.
    """
    blocks = config.num_hidden_layers
    if layer == UNNAMED:
        raise SettingsError(
            f"model.layer: say after which block the hidden states are read, 0 to {blocks - 1} "
            f"(SAE-V takes the middle, {blocks // 2})."
        )
    if not 0 <= layer < blocks:
        raise SettingsError(
            f"model.layer: {layer} is not one of the model's blocks; choose 0 to {blocks - 1}."
        )
    config.num_hidden_layers = layer + 1
    # Some configurations work their types out of other settings instead of storing them.
    if vars(config).get("layer_types"):
        config.layer_types = config.layer_types[: layer + 1]


def check_unquantised(config: Any, directory: Path) -> None:
    """Refuse a quantised checkpoint, whose tensors are no weights.

    Raises:
        SettingsError: It is one.
    """
    if getattr(config, "quantization_config", None):
        raise SettingsError(
            f"model.path: {directory} holds quantised weights; name the model that they were made "
            "of, or convert them with dequantize() and save_pretrained."
        )


def load_truncated(
    model_class: Any,
    config: Any,
    directory: Path,
    *,
    text: TextModule,
    needed: Callable[[str], bool],
    dtype: torch.dtype,
    attention: str,
) -> Any:
    """Load a headless model whose text blocks end where the configuration says.

    transformers renames the checkpoint's keys. The final norm becomes the identity, so that
    `last_hidden_state` is the last block's `resid_post`.

    Args:
        model_class: A transformers model class without a head.
        config: Its configuration, the text part after `cut_text_config`.
        directory: The checkpoint.
        text: The part of the model that is cut.
        needed: Test by a tensor's name in the checkpoint, as `TextModule.needed_up_to` returns it.
        dtype: Format that the weights are converted to.
        attention: `sdpa` or `eager`.

    Raises:
        DataError: Tensors are missing, of another shape, or unknown; the message names them.
    """
    tensors = read_tensors(weight_files(directory, needed), dtype)
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
    missing = {name for name in info["missing_keys"] if not name.startswith(text.final_norm)}
    _refuse(directory, "lacks", missing)
    _refuse(directory, "has unknown", set(info["unexpected_keys"]))
    text.of(model).norm = torch.nn.Identity()
    return model.eval().requires_grad_(requires_grad=False)


def build_truncated(model_class: Any, config: Any, text: TextModule, dtype: torch.dtype) -> Any:
    """Build the model that `load_truncated` loads on the meta device, without its weights."""
    with torch.device("meta"):
        model = model_class(config).to(dtype)
    text.of(model).norm = torch.nn.Identity()
    return model.eval()


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
