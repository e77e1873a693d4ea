from __future__ import annotations

from dataclasses import replace

import torch
from transformers import AutoModel

from raysae.models.checkpoint import StoredTensor
from raysae.models.plan import ForwardPlan, text_blocks, vision_blocks, weight_memory
from tests.models.tiny import build_config

CONFIG = build_config()
TEXT, VISION = text_blocks(CONFIG.text_config), vision_blocks(CONFIG.vision_config)


def matrices(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.ndim == 2)


def test_parameters_are_the_matrices_of_the_blocks() -> None:
    text, vision = (
        AutoModel.from_config(CONFIG.text_config),
        AutoModel.from_config(CONFIG.vision_config),
    )
    assert TEXT.parameters == matrices(text.layers)
    assert VISION.parameters == matrices(vision.encoder)


def test_flops_equal_loops_over_one_sequence() -> None:
    length = 9
    for blocks in (TEXT, VISION):
        total = 0.0
        for position in range(length):
            total += 2 * blocks.parameters
            seen = (position + 0.5) if blocks.causal else length
            total += blocks.n * 4 * seen * blocks.d_heads
        assert abs(length * blocks.flops(length) - total) < 1e-6 * total


def test_published_7b_at_17_blocks() -> None:
    """17 of 32 blocks that hold 6.98 G numbers together, two operations for each."""
    blocks = replace(TEXT, n=17, d=4096, d_heads=4096, d_key_values=1024, d_mlp=14336, heads=32)
    assert 7.3e9 < blocks.flops(0) < 7.6e9


def test_peak_and_flops_add_up() -> None:
    plan = ForwardPlan(32, 1000, 1500, 200, 128, 88, 5, TEXT, 7.0)
    assert plan.peak_bytes == 1200
    assert plan.flops(10, 3) == 10 * TEXT.flops(10) + 21


def test_a_wide_attention_counts_more_than_a_narrow_mlp() -> None:
    assert TEXT.activation_numbers() == 2 * 32 + max(4 * 32 + 2 * 16, 3 * 48)


def test_conversion_holds_one_tensor_in_two_formats() -> None:
    half, other, single = StoredTensor("BF16", 10), StoredTensor("F16", 9), StoredTensor("F32", 1)
    assert weight_memory([half, half], "bfloat16") == (40, 40)
    assert weight_memory([half, other, other], "bfloat16") == (56, 56 + 18)
    assert weight_memory([half, half, single], "float32") == (84, 84 + 20)
