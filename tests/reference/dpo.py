"""Direct Preference Optimization (Rafailov et al., 2023), one token and one pair at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch


def answer_log_probability(model: Any, batch: dict[str, Any], row: int) -> float:
    """log p(answer | prompt), summed over the answer's tokens, of one row of a collated batch."""
    arguments = {key: value for key, value in batch.items() if key != "completion_mask"}
    with torch.no_grad():
        logits = model(**arguments).logits[row]
    total = 0.0
    for position in range(1, len(logits)):
        if batch["completion_mask"][row, position]:
            token = batch["input_ids"][row, position]
            total += torch.log_softmax(logits[position - 1].double(), dim=-1)[token].item()
    return total


def dpo_loss(
    policy: Sequence[tuple[float, float]], reference: Sequence[tuple[float, float]], beta: float
) -> float:
    """Mean of -log σ(β [(log π_c - log ref_c) - (log π_r - log ref_r)]) over (chosen, rejected)."""
    losses = []
    for (policy_c, policy_r), (reference_c, reference_r) in zip(policy, reference, strict=True):
        margin = beta * ((policy_c - reference_c) - (policy_r - reference_r))
        losses.append(math.log(1 + math.exp(-margin)))
    return sum(losses) / len(losses)
