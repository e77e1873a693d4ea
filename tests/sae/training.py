"""Shared by the tests of training: data and a trainer of a chosen size."""

from __future__ import annotations

from typing import Any

import torch

from raysae.sae import SaeSettings, SaeTrainer

D = 6
BATCH = 32


def settings(architecture: str, **changes: Any) -> SaeSettings:
    """Small settings that exercise every schedule and AuxK."""
    given: dict[str, Any] = {
        "architecture": architecture,
        "d_sae": 40,
        "k": 3,
        "lr": 1e-2,
        "steps": 30,
        "batch_tokens": BATCH,
        "l1_coefficient": 0.5,
        "l1_warmup_steps": 5,
        "lr_warmup_steps": 4,
        "lr_decay_steps": 10,
        "dead_after_tokens": 3 * BATCH,
        "aux_k": 4,
        "aux_coefficient": 0.25,
    }
    return SaeSettings(**(given | changes))


def batch(step: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """The inputs (BATCH, D) of a step, of unequal scale by direction so that features die."""
    generator = torch.Generator().manual_seed(step)
    spread_d = torch.tensor([9.0, 4.0, 1.0, 0.3, 0.1, 0.05])
    return (torch.randn(BATCH, D, generator=generator) * spread_d + 1).to(dtype)


def modality(n: int = BATCH) -> torch.Tensor:
    """Text and image tokens in turn."""
    return torch.arange(n, dtype=torch.uint8) % 2


def trainer(architecture: str, dtype: torch.dtype = torch.float64, **changes: Any) -> SaeTrainer:
    """A trainer on the CPU, one rank."""
    return SaeTrainer(settings(architecture, **changes), D, "cpu", batch(999), dtype=dtype)


def weights_of(trained: SaeTrainer) -> dict[str, torch.Tensor]:
    """The weights after the last step, as copies."""
    weights: dict[str, torch.Tensor] = trained.state_dict()["weights"]
    return weights
