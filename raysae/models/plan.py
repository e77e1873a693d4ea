"""What a forward pass costs, predicted from shapes alone, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from raysae.models.checkpoint import FLOAT_FORMATS, StoredTensor

BYTES_PER_NUMBER = {"float32": 4, "bfloat16": 2, "float16": 2}
"""By `ModelSettings.dtype`."""


def weight_memory(stored: Sequence[StoredTensor], dtype: str) -> tuple[int, int]:
    """Return the bytes of loaded weights, and the bytes at the peak of loading.

    Weights that are stored as they are used need no copy; those that are converted are so one by
    one, the largest of them in both formats at once.

    Args:
        stored: The needed tensors, as `stored_tensors` returns them.
        dtype: As in `ModelSettings.dtype`.
    """
    weights = sum(tensor.numbers for tensor in stored) * BYTES_PER_NUMBER[dtype]
    used = getattr(torch, dtype)
    converted = [
        tensor.numbers * FLOAT_FORMATS[tensor.format].itemsize
        for tensor in stored
        if tensor.format in FLOAT_FORMATS and FLOAT_FORMATS[tensor.format] != used
    ]
    return weights, weights + max(converted, default=0)


@dataclass(frozen=True)
class Blocks:
    """A stack of transformer blocks.

    Attributes:
        n: How many run.
        d: Width of the residual stream.
        d_heads: Width of all query heads together.
        d_key_values: Width of all key heads together; grouped-query attention has fewer.
        d_mlp: Width of the MLP.
        heads: Query heads.
        gated: Whether the MLP has a gate (three matrices instead of two).
        causal: Whether a token sees only those before it (half of the attention's work).
    """

    n: int
    d: int
    d_heads: int
    d_key_values: int
    d_mlp: int
    heads: int
    gated: bool
    causal: bool

    @property
    def parameters(self) -> int:
        """Numbers in the matrices: 2·d·(d_heads + d_key_values) + (2 or 3)·d·d_mlp per block."""
        attention = 2 * self.d * (self.d_heads + self.d_key_values)
        return self.n * (attention + (3 if self.gated else 2) * self.d * self.d_mlp)

    def flops(self, length: int) -> float:
        """Return the floating-point work of one token of a sequence of `length` tokens.

        2 per matrix element, and 4·length·d_heads per block for QKᵀ and its product with V, half of
        it where the attention is causal.
        """
        attention = 4 * length * self.d_heads * self.n * (0.5 if self.causal else 1.0)
        return 2.0 * self.parameters + attention

    def activation_numbers(self) -> int:
        """Return how many numbers one token needs at the peak of a block, attention matrix aside.

        The residual, its normed copy, and the wider of the two phases: queries, keys and values,
        keys and values repeated to the query heads; or the MLP's gate, input and product.
        """
        attention = 2 * self.d_heads + 2 * self.d_key_values + 2 * self.d_heads
        mlp = (3 if self.gated else 2) * self.d_mlp
        return 2 * self.d + max(attention, mlp)


def text_blocks(config: Any) -> Blocks:
    """Read the stack of a decoder-only text configuration (Llama, Mistral, Qwen2, …)."""
    heads = config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Blocks(
        n=config.num_hidden_layers,
        d=config.hidden_size,
        d_heads=heads * d_head,
        d_key_values=(getattr(config, "num_key_value_heads", None) or heads) * d_head,
        d_mlp=config.intermediate_size,
        heads=heads,
        gated=True,
        causal=True,
    )


def vision_blocks(config: Any) -> Blocks:
    """Read the stack of a CLIP-like vision configuration."""
    return Blocks(
        n=config.num_hidden_layers,
        d=config.hidden_size,
        d_heads=config.hidden_size,
        d_key_values=config.hidden_size,
        d_mlp=config.intermediate_size,
        heads=config.num_attention_heads,
        gated=False,
        causal=False,
    )


@dataclass(frozen=True)
class ForwardPlan:
    """Predicted cost of `HiddenStateModel.hidden_states`.

    Attributes:
        d_in: Width of a hidden state.
        weight_bytes: Weights that are loaded, in the settings' dtype.
        load_bytes: Host memory at the peak of loading; weights that are stored in the settings'
            dtype are mapped files (reclaimable) until they are moved to another device.
        activation_bytes: Peak of one batch of `token_budget` padded tokens above the weights.
        bytes_per_token: One hidden state in the settings' dtype.
        max_image_tokens: Most tokens that one image becomes; 0 where none is shown.
        max_image_tiles: Most tiles that one image becomes; 0 where none is shown.
        text: The blocks that run on every token.
        flops_per_tile: Work of the vision tower and the projector on one tile.
    """

    d_in: int
    weight_bytes: int
    load_bytes: int
    activation_bytes: int
    bytes_per_token: int
    max_image_tokens: int
    max_image_tiles: int
    text: Blocks
    flops_per_tile: float

    @property
    def peak_bytes(self) -> int:
        """Weights and a batch on the device; the process itself (about 0.6 GB) is not counted."""
        return self.weight_bytes + self.activation_bytes

    def flops(self, n_tokens: int, n_tiles: int) -> float:
        """Return the floating-point work of one sample.

        Args:
            n_tokens: Its tokens, image tokens included.
            n_tiles: Its image tiles.
        """
        return n_tokens * self.text.flops(n_tokens) + n_tiles * self.flops_per_tile


@dataclass(frozen=True)
class ModelSize:
    """A whole model, as training holds it.

    Attributes:
        parameters: All its numbers.
        vision_parameters: Those of the vision tower, the projector not among them.
        text: All its text blocks.
    """

    parameters: int
    vision_parameters: int
    text: Blocks
