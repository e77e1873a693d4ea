"""Loading the policy and the reference model, freezing, and LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raysae.errors import SettingsError
from raysae.finetune.settings import FinetuneSettings

SUPPORTED_MODEL_TYPES = ("llava_next",)
"""`model_type` of the architectures whose training is tested."""

LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""LoRA's usual places, in the language model only: TRL's loss would bypass an adapted head."""


def check_model(directory: Path, settings: FinetuneSettings) -> None:
    """Refuse, before anything is started, a model that cannot be trained.

    Args:
        directory: As `raysae.models.checkpoint.model_directory` returns it.
        settings: For LoRA and the vision tower.

    Raises:
        SettingsError: A damaged configuration, an architecture that is not supported, or LoRA
            together with a trainable vision tower.
    """
    path = directory / "config.json"
    try:
        model_type = json.loads(path.read_bytes()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise SettingsError(f"finetune.model: {path} is no JSON object ({error}).") from error
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise SettingsError(
            f"finetune.model: {directory} is of type {model_type!r}, but only "
            f"{', '.join(SUPPORTED_MODEL_TYPES)} can be fine-tuned."
        )
    if settings.lora_rank and not settings.freeze_vision:
        raise SettingsError(
            "finetune.freeze_vision: LoRA trains adapters in the language model only; set it to "
            "true or finetune.lora_rank to 0."
        )


def load_model(directory: Path, dtype: str) -> Any:
    """Load all of a LLaVA-NeXT model's weights from safetensors.

    Args:
        directory: A model's directory, or a checkpoint of its training.
        dtype: `float32` or `bfloat16`.

    Raises:
        SettingsError: A weight is missing in the files; transformers alone would only warn and
            train a random one.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    model, info = AutoModelForImageTextToText.from_pretrained(
        directory,
        dtype=getattr(torch, dtype),
        attn_implementation="sdpa",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise SettingsError(
            f"finetune.model: {directory} lacks {len(missing)} weights of the model, the first is "
            f"{missing[0]}; name a complete checkpoint."
        )
    return model


def policy_dtype(settings: FinetuneSettings) -> str:
    """Return the dtype to load policy and reference in.

    DeepSpeed keeps float32 masters of bfloat16 weights in its optimizer; without DeepSpeed the
    weights themselves are the masters and autocast does the rest.
    """
    return settings.dtype if settings.zero_stage else "float32"


def load_policy(directory: Path, settings: FinetuneSettings) -> Any:
    """Load the model to train, with the vision tower frozen if so set.

    Args:
        directory: The model, or on resuming without DeepSpeed and LoRA the checkpoint, whose
            weights transformers' trainer would not restore (it saves them under legacy names and
            loads them with `strict=False`, so that training restarts from the first weights).
        settings: For the dtype and `freeze_vision`.
    """
    model = load_model(directory, policy_dtype(settings))
    if settings.freeze_vision:
        freeze_vision_tower(model)
    return model


def freeze_vision_tower(model: Any) -> None:
    """Take the vision tower out of training; projector and newline vector stay trainable."""
    model.model.vision_tower.requires_grad_(requires_grad=False)


def load_reference(directory: Path, settings: FinetuneSettings) -> Any:
    """Load DPO's reference model: always the first weights, also when training resumes.

    Returns:
        The model, or None with LoRA, where the policy without its adapters is the reference.
    """
    if settings.lora_rank:
        return None
    model = load_model(directory, policy_dtype(settings))
    model.requires_grad_(requires_grad=False)
    return model.eval()


def lora_config(settings: FinetuneSettings) -> Any:
    """Return PEFT's configuration (α = 2 × rank, no dropout), or None without LoRA."""
    if not settings.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank,
        lora_dropout=0.0,
        target_modules=LORA_TARGETS,
    )
