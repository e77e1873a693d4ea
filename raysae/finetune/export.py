"""The tuned model as a Hugging Face checkpoint: safetensors, settings, processor; no pickle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from raysae.finetune.model import load_model, lora_config
from raysae.finetune.processor import load_processor
from raysae.finetune.settings import FinetuneSettings

MAX_SHARD_SIZE = "1GB"
"""Of one file of the tuned model's weights."""


def save_tuned(
    trainer: Any, model_directory: Path, output: Path, settings: FinetuneSettings
) -> None:
    """Write the tuned model; every rank calls it, since ZeRO-3 gathers the weights from all.

    LoRA's adapters are merged into the first weights, so that the checkpoint opens with
    transformers alone. The processor is the model's own, not the one with a prefixed template.

    Args:
        trainer: The trainer, after the training.
        model_directory: The first weights.
        output: Replaced by a directory with the checkpoint, on rank 0.
        settings: For `dtype` and LoRA.
    """
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        if settings.lora_rank:
            model, state = _merge_adapters(model, state, model_directory, settings), None
        _save_model(model, state, output, settings.dtype)
        load_processor(model_directory).save_pretrained(output)
    trainer.accelerator.wait_for_everyone()


def _save_model(model: Any, state: dict[str, Any] | None, output: Path, dtype: str) -> None:
    """Write weights and configuration in the settings' dtype."""
    import torch

    target = getattr(torch, dtype)
    state = model.state_dict() if state is None else state
    cast = {
        name: tensor.to(target) if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    if model.dtype != target:
        # save_pretrained writes the module's dtype into the configuration.
        model.to(target)
    # A shard is copied whole before it is written.
    model.save_pretrained(output, state_dict=cast, max_shard_size=MAX_SHARD_SIZE)


def _merge_adapters(
    model: Any, state: dict[str, Any], model_directory: Path, settings: FinetuneSettings
) -> Any:
    """Load the first weights afresh and add the trained adapters to them."""
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    adapters = get_peft_model_state_dict(model, state_dict=state)
    # Only this rank loads: under a ZeRO-3 configuration from_pretrained would wait for the others.
    unset_hf_deepspeed_config()
    # Adapters are float32, so that each sum is rounded to the saved dtype once.
    merged = get_peft_model(load_model(model_directory, settings.dtype), lora_config(settings))
    set_peft_model_state_dict(merged, adapters)
    return merged.merge_and_unload()
