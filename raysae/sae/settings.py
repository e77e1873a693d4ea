"""What decides the training of a sparse autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from raysae.errors import SettingsError


@dataclass(frozen=True)
class SaeSettings:
    """Settings of one SAE and its training; every field decides the result and is hashed.

    Attributes:
        architecture: `relu`: ReLU with SAE-V's norm-weighted L1; `topk`: the k largest
            pre-activations per token, with AuxK against dead features.
        d_sae: Number of features.
        k: Active features per token (`topk` only).
        l1_coefficient: λ of the L1 term Σ_k z_k‖W_dec,k‖ (`relu` only).
        l1_warmup_steps: Steps over which λ rises linearly from 0.
        lr: Adam's peak learning rate; 0 means 2e-4/√(d_sae/2¹⁴), which suits unit-norm decoders.
        lr_warmup_steps: Steps over which the learning rate rises linearly from 0.
        lr_decay_steps: Last steps, over which it falls linearly towards 0.
        steps: Optimizer steps of the whole training.
        batch_tokens: Tokens of one step, over all ranks together.
        dead_after_tokens: A feature that fired on none of this many tokens counts as dead.
        aux_k: Dead features per token, at most, that AuxK lets reconstruct the residual; 0 turns it
            off (`topk` only).
        aux_coefficient: Weight of AuxK's loss.
        normalize: `mean-norm` multiplies the inputs by one constant, estimated from a sample, so
            that their mean norm is √d_in, and folds it into the finished weights; `none` does not.
        seed: Seed of the initial decoder directions.
    """

    architecture: Literal["relu", "topk"] = "topk"
    d_sae: int = 8192
    k: int = 32
    l1_coefficient: float = 5.0
    l1_warmup_steps: int = 0
    lr: float = 0.0
    lr_warmup_steps: int = 0
    lr_decay_steps: int = 0
    steps: int = 30_000
    batch_tokens: int = 4096
    dead_after_tokens: int = 10_000_000
    aux_k: int = 256
    aux_coefficient: float = 1 / 32
    normalize: Literal["none", "mean-norm"] = "mean-norm"
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            SettingsError: A field is out of its range; the message names it.
        """
        self._check_choice("architecture", ("relu", "topk"))
        self._check_choice("normalize", ("none", "mean-norm"))
        for name in ("d_sae", "k", "steps", "batch_tokens", "dead_after_tokens"):
            self._check_at_least(name, 1)
        for name in (
            *("l1_coefficient", "l1_warmup_steps", "lr", "lr_warmup_steps", "lr_decay_steps"),
            *("aux_k", "aux_coefficient", "seed"),
        ):
            self._check_at_least(name, 0)
        self._check_relations()

    @property
    def peak_lr(self) -> float:
        """The learning rate between warm-up and decay, with the rule for `lr=0` applied."""
        return self.lr or 2e-4 / math.sqrt(self.d_sae / 2**14)

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise SettingsError(f"sae.{name} is {value!r}; choose one of {', '.join(choices)}.")

    def _check_at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if not (math.isfinite(value) and value >= least):
            raise SettingsError(f"sae.{name} is {value}; it must be a finite number ≥ {least}.")

    def _check_relations(self) -> None:
        if self.architecture == "topk" and self.k > self.d_sae:
            raise SettingsError(
                f"sae.k is {self.k}, more than sae.d_sae = {self.d_sae}; lower k or raise d_sae."
            )
        if self.lr_warmup_steps + self.lr_decay_steps > self.steps:
            raise SettingsError(
                "sae.lr_warmup_steps + sae.lr_decay_steps is "
                f"{self.lr_warmup_steps + self.lr_decay_steps}, more than "
                f"sae.steps = {self.steps}; shorten them or train longer."
            )
