"""The weights in the layout that training wants: both matrices with one row per feature.

Shape letters: f features, d `d_in`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Weights:
    """The four tensors of an SAE in training, or their gradients.

    Attributes:
        W_enc_fd: (d_sae, d_in), the transpose of `Sae.W_enc`.
        W_dec_fd: (d_sae, d_in).
        b_enc_f: (d_sae,).
        b_dec_d: (d_in,).
    """

    W_enc_fd: torch.Tensor
    W_dec_fd: torch.Tensor
    b_enc_f: torch.Tensor
    b_dec_d: torch.Tensor

    def by_name(self) -> dict[str, torch.Tensor]:
        """Return the tensors by their names, always in the same order."""
        return {
            "W_enc_fd": self.W_enc_fd,
            "W_dec_fd": self.W_dec_fd,
            "b_enc_f": self.b_enc_f,
            "b_dec_d": self.b_dec_d,
        }

    def tensors(self) -> list[torch.Tensor]:
        """Return the tensors in the order of `by_name`."""
        return list(self.by_name().values())

    def add_(self, other: Weights) -> None:
        """Add another's tensors in place."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine.add_(theirs)


def row_chunks(n_rows: int, n_columns: int, device: torch.device) -> list[slice]:
    """Cut `n_rows` into the parts of a (rows, n_columns) matrix to work on at once, largest first.

    A part has at most 8 Mi elements on a CPU (where more does not make a matmul faster) and 64 Mi
    on an accelerator, but at least 64 rows.
    """
    elements = 2**23 if device.type == "cpu" else 2**26
    rows = max(64, elements // n_columns)
    return [slice(first, min(first + rows, n_rows)) for first in range(0, n_rows, rows)]


def remove_parallel_part(gradient_fd: torch.Tensor, unit_fd: torch.Tensor) -> None:
    """Remove, in place, from each row of the gradient what only changes the length of a unit row.

    Args:
        gradient_fd: (f, d), changed.
        unit_fd: (f, d), rows of norm 1.
    """
    for chunk in row_chunks(len(unit_fd), unit_fd.shape[1], unit_fd.device):
        unit = unit_fd[chunk]
        along = torch.linalg.vecdot(gradient_fd[chunk], unit)
        gradient_fd[chunk].addcmul_(unit, along[:, None], value=-1)
