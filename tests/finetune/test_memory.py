"""Predicted memory, against parameters that are counted and tensors that autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from transformers import MistralConfig, MistralModel

from raysae.finetune import FinetuneRunSettings, FinetuneSettings, plan_tuning_memory
from raysae.finetune.memory import trained_parameters
from raysae.finetune.model import load_policy, lora_config
from raysae.models import Blocks, ModelSize, model_size
from raysae.models.plan import text_blocks
from tests.finetune.tiny import settings_for

LENGTH = 192
TEXT = MistralConfig(
    vocab_size=16,
    hidden_size=256,
    intermediate_size=896,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=2,
    attn_implementation="sdpa",
)


def bytes_kept(model: torch.nn.Module, dtype: torch.dtype, **options: object) -> int:
    """Count what autograd keeps of a forward pass, parameters aside, each storage once."""
    parameters = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    # What is kept stays alive here, so that no address is given out twice.
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    embedded = torch.randn(2, LENGTH, TEXT.hidden_size, dtype=dtype, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(inputs_embeds=embedded, use_cache=False, **options).last_hidden_state
    del output
    return sum(storage.nbytes() for storage in kept.values())


def predicted(settings: FinetuneSettings, run: FinetuneRunSettings) -> float:
    """Return the bytes that the plan adds for one more token in each sequence, per token."""
    size = ModelSize(0, 0, text_blocks(TEXT))
    more, less = (plan_tuning_memory(size, settings, run, tokens) for tokens in (1000, 0))
    return (more - less) / (2 * run.per_device_batch * 1000)


class WhereLoraLooks(torch.nn.Module):
    """Puts a text model where a vision-language model has it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.language_model = model


@pytest.mark.parametrize(("dtype", "rank"), [("float32", 0), ("bfloat16", 0), ("bfloat16", 8)])
def test_activations_are_what_autograd_keeps(dtype, rank):
    settings = FinetuneSettings(dtype=dtype, lora_rank=rank)
    model = MistralModel(TEXT).to(getattr(torch, dtype))
    if rank:
        adapted = get_peft_model(WhereLoraLooks(model), lora_config(settings))
        model = adapted.base_model.model.language_model
    kept = bytes_kept(model, getattr(torch, dtype)) / (2 * LENGTH)
    assert predicted(settings, FinetuneRunSettings()) == pytest.approx(kept, rel=0.2)


def test_checkpointing_keeps_one_block_and_every_input():
    settings = FinetuneSettings(dtype="bfloat16")
    whole = predicted(settings, FinetuneRunSettings())
    checkpointed = predicted(settings, FinetuneRunSettings(gradient_checkpointing=True))
    assert checkpointed == pytest.approx(whole / 3 + 3 * TEXT.hidden_size * 2)


@pytest.mark.parametrize("change", [{}, {"freeze_vision": False}, {"lora_rank": 4}])
def test_trained_parameters_are_those_that_change(model, change):
    settings = settings_for(model, **change)
    policy = load_policy(model, settings)
    size = model_size(str(model))
    assert size.parameters == sum(weight.numel() for weight in policy.parameters())
    if settings.lora_rank:
        policy = get_peft_model(policy, lora_config(settings))
    counted = sum(weight.numel() for weight in policy.parameters() if weight.requires_grad)
    assert trained_parameters(size, settings) == counted


def states(change: dict, **run: object) -> float:
    """Return predicted bytes per parameter of a model that is all text."""
    size = ModelSize(1_000_000, 0, Blocks(1, 8, 8, 8, 8, 1, gated=True, causal=True))
    settings = replace(FinetuneSettings(dtype="bfloat16", zero_stage=2), **change)
    return plan_tuning_memory(size, settings, FinetuneRunSettings(**run), 0) / 1e6


def test_states_are_spread_as_zero_spreads_them():
    # bfloat16 policy, reference and gradients; float32 masters, their gradients, two moments
    assert states({}) == 2 + 2 + 2 + 16
    assert states({}, workers=4) == 2 + 2 + 2 + 4
    assert states({"zero_stage": 3}, workers=4) == 0.5 + 0.5 + 2 + 4
    assert states({}, offload="optimizer") == 2 + 2 + 2
    assert states({"zero_stage": 3}, offload="optimizer+parameters") == 2
    assert states({"zero_stage": 0}) == 4 + 4 + 4 + 8
    assert states({"lora_rank": 1}) == pytest.approx(2, abs=0.01)
