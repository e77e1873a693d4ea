"""What a forward pass costs, predicted from shapes alone, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BYTES_PER_NUMBER = {"float32": 4, "bfloat16": 2, "float16": 2}
"""By `ModelSettings.dtype`."""

_STORED_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_STORED_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}


def weight_memory(stored: Mapping[str, int], dtype: str) -> tuple[int, int]:
    """Return the bytes of loaded weights, and the bytes at the peak of loading.

    While weights are converted, the mapped files they come from stay resident beside them; weights
    that are stored as they are used need no copy.

    Args:
        stored: Numbers by stored format, as `count_numbers` returns them.
        dtype: As in `ModelSettings.dtype`.
    """
    weights = sum(stored.values()) * BYTES_PER_NUMBER[dtype]
    converted = {name: n for name, n in stored.items() if name != _STORED_NAMES[dtype]}
    return weights, weights + sum(n * _STORED_BYTES.get(name, 1) for name, n in converted.items())


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
    """Read the stack of a CLIP- or SigLIP-like vision configuration."""
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
        load_bytes: Host memory at the peak of loading, part of it mapped files (reclaimable).
        activation_bytes: Peak of one batch of `token_budget` padded tokens above the weights.
        bytes_per_token: One hidden state in the settings' dtype.
        max_image_tokens: Most tokens that one image becomes.
        max_image_tiles: Most tiles that one image becomes.
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
