"""Mergeable sums by modality, from which reconstruction quality and L0 follow.

Shape letters: n tokens, d `d_in`, g modalities (text, image, special).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from raysae.errors import DataError
from raysae.sample import Modality

ModalityOfTokens = torch.Tensor | npt.NDArray[np.uint8]
"""(n,), a `Modality` per token."""

GROUPS: dict[str, Sequence[Modality]] = {
    "all": tuple(Modality),
    "text": (Modality.TEXT,),
    "image": (Modality.IMAGE,),
}
"""The groups of tokens that are reported."""

_CHUNK_TOKENS = 1024
_SCALARS = ("tokens", "squared_error", "squared_norm", "l0")


def as_modality_tensor(
    modality_n: ModalityOfTokens, n_tokens: int, device: torch.device
) -> torch.Tensor:
    """Return the modalities as int64 (n,) on `device`.

    Raises:
        DataError: There is not exactly one per token.
    """
    if not isinstance(modality_n, torch.Tensor):
        modality_n = torch.from_numpy(np.array(modality_n))
    if modality_n.shape != (n_tokens,):
        raise DataError(
            f"{tuple(modality_n.shape)} modalities were given for {n_tokens} tokens; there must be "
            "one per token."
        )
    return modality_n.to(device).long()


class ModalitySums:
    """Float64 sums over tokens, per modality; nothing here makes the host wait for the device.

    Attributes:
        scalars: (4, g): tokens, Σ‖x̂ − x‖², Σ‖x‖², Σ active features.
        sum_gd: (g, d): Σ x.
    """

    def __init__(self, d_in: int, device: torch.device | str = "cpu") -> None:
        n_modalities = len(Modality)
        self.scalars = torch.zeros(len(_SCALARS), n_modalities, dtype=torch.float64, device=device)
        self.sum_gd = torch.zeros(n_modalities, d_in, dtype=torch.float64, device=device)

    def add(
        self,
        x_nd: torch.Tensor,
        squared_error_n: torch.Tensor,
        l0_n: torch.Tensor,
        modality_n: torch.Tensor,
    ) -> None:
        """Add tokens: inputs (n, d), ‖x̂ − x‖² (n,), active features (n,), modality int64 (n,)."""
        for first in range(0, len(x_nd), _CHUNK_TOKENS):
            chunk = slice(first, first + _CHUNK_TOKENS)
            member_ng = torch.zeros(
                len(x_nd[chunk]), len(Modality), dtype=torch.float64, device=x_nd.device
            )
            member_ng.scatter_(1, modality_n[chunk, None], 1.0)
            # A mean far from 0 cancels below, so the sums must not be of rounded squares.
            wide_nd = x_nd[chunk].double()
            columns = (
                torch.ones_like(member_ng[:, 0]),
                squared_error_n[chunk].double(),
                wide_nd.square().sum(1),
                l0_n[chunk].double(),
            )
            self.scalars += torch.stack(columns) @ member_ng
            self.sum_gd += member_ng.T @ wide_nd

    def tensors(self) -> list[torch.Tensor]:
        """Return the sums; two `ModalitySums` are merged by adding these."""
        return [self.scalars, self.sum_gd]

    def group(self, name: str) -> dict[str, float]:
        """Return `tokens`, `squared_error` (per token), `l0`, `fvu` of a group of `GROUPS`.

        fvu, the fraction of variance unexplained, is Σ‖x̂ − x‖² / Σ‖x − mean‖² with the group's own
        mean. All but `tokens` are NaN where the group is empty.
        """
        members = list(GROUPS[name])
        tokens, error, norm, l0 = self.scalars[:, members].sum(1).tolist()
        if tokens == 0:
            return {"tokens": 0.0, "squared_error": math.nan, "l0": math.nan, "fvu": math.nan}
        variance = norm - self.sum_gd[members].sum(0).square().sum().item() / tokens
        return {
            "tokens": tokens,
            "squared_error": error / tokens,
            "l0": l0 / tokens,
            "fvu": error / variance if variance > 0 else math.nan,
        }
