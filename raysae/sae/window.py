"""What happened in training since it was last asked for, kept on the device."""

from __future__ import annotations

import torch

from raysae.errors import DataError
from raysae.sae.architectures import StepResult
from raysae.sae.reduction import Ranks
from raysae.sae.sums import GROUPS, ModalitySums

_NEVER = 2**62


class TrainingWindow:
    """Sums over the steps since the last `report`, on this rank's tokens.

    Args:
        d_in: Size of a hidden state.
        device: Where the sums are kept.
    """

    def __init__(self, d_in: int, device: torch.device) -> None:
        self._d_in, self._device = d_in, device
        self._first_bad_step = torch.full((), _NEVER, dtype=torch.int64, device=device)
        self._clear()

    def add(
        self, step: int, x_nd: torch.Tensor, result: StepResult, modality_n: torch.Tensor
    ) -> None:
        """Add one step without making the host wait."""
        self._sums.add(x_nd, result.squared_error_n, result.l0_n, modality_n)
        penalty = result.penalty_n.sum()
        self._penalty += penalty
        finite = torch.isfinite(result.squared_error_n.sum() + penalty)
        bad_step = torch.where(finite, _NEVER, step)
        self._first_bad_step = torch.minimum(self._first_bad_step, bad_step)
        self._steps += 1

    def report(self, ranks: Ranks, batch_tokens: int) -> dict[str, float]:
        """Return the means over all ranks and begin a new window; every rank has to call it.

        Raises:
            DataError: A loss was not finite, or the ranks' slices did not add up to the batch.
        """
        ranks.sum_in_place([*self._sums.tensors(), self._penalty])
        ranks.minimum_in_place(self._first_bad_step)
        self.check_finite()
        expected = self._steps * batch_tokens
        overall = self._sums.group("all")
        if overall["tokens"] != expected:
            raise DataError(
                f"SAE training: the ranks trained on {overall['tokens']:.0f} tokens together, but "
                f"{self._steps} steps have {expected}; give each rank its own slice of the batch."
            )
        penalty = self._penalty.item() / max(expected, 1)
        report = {
            "loss": overall["squared_error"] + penalty,
            "squared_error": overall["squared_error"],
            "penalty": penalty,
        }
        for name in GROUPS:
            group = self._sums.group(name)
            suffix = "" if name == "all" else f"_{name}"
            if group["tokens"] > 0:
                report |= {f"l0{suffix}": group["l0"], f"fvu{suffix}": group["fvu"]}
        self._clear()
        return report

    def check_finite(self) -> None:
        """Look whether every loss was finite; this makes the host wait.

        Raises:
            DataError: One was not; the message names the step.
        """
        step = int(self._first_bad_step.item())
        if step != _NEVER:
            raise DataError(
                f"SAE training: the loss is not finite at step {step}; go back to a checkpoint "
                "before it with a lower sae.lr, or drop outlier tokens when caching "
                "(max_norm_ratio)."
            )

    def _clear(self) -> None:
        self._sums = ModalitySums(self._d_in, self._device)
        self._penalty = torch.zeros((), dtype=torch.float64, device=self._device)
        self._steps = 0
