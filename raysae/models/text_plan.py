"""What the text blocks of a forward pass cost: the part of a plan that all models share."""

from __future__ import annotations

from typing import Any

from raysae.models.decoder import longest_prompt
from raysae.models.plan import BYTES_PER_NUMBER, Blocks
from raysae.models.settings import ModelSettings

_TEXT_TOKENS = 256
"""Text beside the largest image that the plan of an attention matrix allows for."""


def text_activation_bytes(
    settings: ModelSettings, config: Any, blocks: Blocks, max_image_tokens: int, token_budget: int
) -> int:
    """Return the peak of the text blocks on `token_budget` padded tokens, in bytes.

    A block's peak on every token and the embeddings beside it. With `eager` also three copies of
    one row of the attention matrix per head (scores, float32 softmax, weights); with a sliding
    window shorter than a row one row of its mask, as truth values and as numbers.

    Args:
        settings: `dtype` and `attention` count.
        config: The text configuration.
        blocks: What `text_blocks` reads in it.
        max_image_tokens: Of one image; 0 where texts alone are shown, which may fill the budget.
        token_budget: Padded tokens of a batch.
    """
    size = BYTES_PER_NUMBER[settings.dtype]
    row = min(longest_prompt(config), token_budget)
    if max_image_tokens:
        row = max_image_tokens + _TEXT_TOKENS
    per_token = (blocks.d + blocks.activation_numbers()) * size
    if settings.attention == "eager":
        per_token += blocks.heads * row * (2 * size + 4)
    if row > (getattr(config, "sliding_window", None) or row):
        per_token += row * (1 + size)
    return token_budget * per_token
