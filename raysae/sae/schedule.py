"""How the learning rate and λ change over the steps of a training."""

from __future__ import annotations

from raysae.sae.settings import SaeSettings


def learning_rate(settings: SaeSettings, step: int) -> float:
    """Return the learning rate of step `step` (from 0): linear warm-up, constant, linear decay.

    The first warm-up step already learns (1/warmup of the peak); the last decay step is 1/decay of
    the peak, not 0, so that no step is wasted.
    """
    up = (step + 1) / settings.lr_warmup_steps if settings.lr_warmup_steps else 1.0
    down = (settings.steps - step) / settings.lr_decay_steps if settings.lr_decay_steps else 1.0
    return settings.peak_lr * max(0.0, min(1.0, up, down))


def l1_coefficient(settings: SaeSettings, step: int) -> float:
    """Return λ at step `step` (from 0): linear from 0 over `l1_warmup_steps`, then constant."""
    if settings.l1_warmup_steps == 0:
        return settings.l1_coefficient
    return settings.l1_coefficient * min(1.0, step / settings.l1_warmup_steps)
