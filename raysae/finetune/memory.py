"""How much memory fine-tuning will need, before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysae.finetune.settings import FinetuneRunSettings, FinetuneSettings

if TYPE_CHECKING:
    from raysae.models import Blocks, ModelSize

_FLOAT32 = 4
_ADAM_MOMENTS = 2 * _FLOAT32


def plan_tuning_memory(
    size: ModelSize,
    settings: FinetuneSettings,
    run: FinetuneRunSettings,
    longest_tokens: int,
) -> int:
    """Predict the peak bytes that one worker's training holds on its device.

    Weights of policy and reference, gradients, AdamW's state, and what the backward pass needs of
    one micro-batch: per_device_batch pairs are twice as many sequences, padded to the longest. Not
    the interpreter, and not what DeepSpeed keeps in host memory (`offload`).

    Args:
        size: The model's.
        settings: What is trained.
        run: How it is spread over workers.
        longest_tokens: Tokens of the longest prompt with an answer, image tokens included.
    """
    tokens = 2 * run.per_device_batch * longest_tokens
    return _states(size, settings, run) + tokens * _activation_bytes(size.text, settings, run)


def trained_parameters(size: ModelSize, settings: FinetuneSettings) -> int:
    """Return how many numbers the optimizer changes."""
    if settings.lora_rank:
        return settings.lora_rank * _lora_width(size.text)
    return size.parameters - size.vision_parameters * settings.freeze_vision


def _lora_width(text: Blocks) -> int:
    """Return inputs plus outputs of all adapted matrices: numbers in adapters of rank 1."""
    queries_and_output = 2 * (text.d + text.d_heads)
    keys_and_values = 2 * (text.d + text.d_key_values)
    return text.n * (queries_and_output + keys_and_values + 3 * (text.d + text.d_mlp))


def _states(size: ModelSize, settings: FinetuneSettings, run: FinetuneRunSettings) -> int:
    """Return the bytes of weights, gradients and optimizer state.

    ZeRO 2 spreads float32 masters, Adam's moments and their gradients over the workers, ZeRO 3 the
    weights too. Without DeepSpeed the weights are float32 and their own masters, and so are LoRA's
    adapters everywhere (PEFT's default).
    """
    number = 2 if settings.dtype == "bfloat16" and settings.zero_stage else _FLOAT32
    weight_parts = run.workers if settings.zero_stage == 3 else 1
    if run.offload == "optimizer+parameters":
        weights = 0
    else:
        copies = 1 if settings.lora_rank else 2
        weights = copies * size.parameters * number // weight_parts
    trained = trained_parameters(size, settings)
    trained_number = _FLOAT32 if settings.lora_rank else number
    gradients = trained * trained_number
    if not settings.zero_stage:
        return weights + gradients + trained * _ADAM_MOMENTS
    if run.offload == "none":
        masters_and_gradients = 2 * _FLOAT32
        gradients += trained * (masters_and_gradients + _ADAM_MOMENTS) // run.workers
    return weights + gradients


def _activation_bytes(text: Blocks, settings: FinetuneSettings, run: FinetuneRunSettings) -> int:
    """Return the bytes per token that the backward pass needs.

    A block keeps: both norms' inputs in float32 and their outputs; queries, repeated keys and
    values, and the attention's output; the MLP's gate, its activation, its input and their product.
    LoRA's float32 adapters keep a float32 copy of each adapted matrix's input. With checkpointing a
    block keeps its input alone, and one block at a time is recomputed.
    """
    number = 2 if settings.dtype == "bfloat16" else _FLOAT32
    norms = 2 * text.d * (_FLOAT32 + number)
    block = norms + 4 * text.d_heads * number + 4 * text.d_mlp * number
    if settings.lora_rank and number != _FLOAT32:
        block += (5 * text.d + text.d_heads + text.d_mlp) * _FLOAT32
    if run.gradient_checkpointing:
        return text.n * text.d * number + block
    return text.n * block
