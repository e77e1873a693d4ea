"""What an SAE architecture has to provide.

Shape letters: n tokens, d `d_in`, f features, b features of one block, m active pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from raysae.sae.settings import SaeSettings
from raysae.sae.weights import Weights

ActivePairs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""token int64 (m,), feature int64 (m,), value (m,)."""


@dataclass(frozen=True)
class StepBatch:
    """One rank's part of a training batch.

    Attributes:
        x_nd: (n, d_in), scaled inputs in the weights' dtype.
        mean_weight: 1 / (tokens of the global batch): what one token counts in the loss.
        l1_coefficient: λ at this step.
        dead_f: bool (d_sae,), the features that count as dead; None if surely none is.
    """

    x_nd: torch.Tensor
    mean_weight: float
    l1_coefficient: float
    dead_f: torch.Tensor | None


@dataclass(frozen=True)
class StepResult:
    """What one rank's part of a batch gives.

    Attributes:
        gradients: Of the loss (a mean over the global batch), this rank's share.
        squared_error_n: (n,), ‖x̂ − x‖² per token.
        penalty_n: (n,), the other term of the loss per token, its coefficient included.
        l0_n: (n,), active features per token.
        fires_f: float32 (d_sae,), on how many tokens each feature is active.
    """

    gradients: Weights
    squared_error_n: torch.Tensor
    penalty_n: torch.Tensor
    l0_n: torch.Tensor
    fires_f: torch.Tensor


class Architecture(Protocol):
    """An activation function and a loss with its gradients.

    Attributes:
        saelens_name: What SAELens calls it.
        subtracts_b_dec: Whether b_dec is subtracted from the input of the encoder.
        unit_norm_decoder: Whether training keeps every decoder row at norm 1.
        start_norm: Norm of the decoder rows at the start.
    """

    saelens_name: str
    subtracts_b_dec: bool
    unit_norm_decoder: bool
    start_norm: float

    def activate(self, pre_nf: torch.Tensor, k: int) -> torch.Tensor:
        """Return the codes z (n, f) of pre-activations (n, f)."""
        ...

    def collect(
        self, blocks: Iterable[tuple[int, torch.Tensor]], k: int, threshold: float
    ) -> ActivePairs:
        """Return the active pairs, value > threshold, in any order.

        Args:
            blocks: (first feature, pre-activations (n, b)) of consecutive feature blocks; each is
                valid only until the next is asked for.
            k: Active features per token, where that applies.
            threshold: ≥ 0.
        """
        ...

    def loss_gradients(
        self, weights: Weights, batch: StepBatch, settings: SaeSettings
    ) -> StepResult:
        """Return the loss of a batch and its gradients."""
        ...
