"""One shard's tokens in memory, sample by sample, until they are written in another order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from raysae.activations.format import MAX_SHARD_BYTES, TORCH_DTYPES, as_torch, numpy_type


@dataclass(frozen=True)
class TokenColumns:
    """The columns of a token file beside the activation.

    Attributes:
        sample_n: int32 (n,), row in the shard's samples table.
        position_n: int32 (n,).
        token_id_n: int32 (n,).
        modality_n: uint8 (n,).
        norm_n: float32 (n,), Euclidean norm of the hidden state.
    """

    sample_n: npt.NDArray[np.int32]
    position_n: npt.NDArray[np.int32]
    token_id_n: npt.NDArray[np.int32]
    modality_n: npt.NDArray[np.uint8]
    norm_n: npt.NDArray[np.float32]

    def take(self, index_m: npt.NDArray[np.int64]) -> TokenColumns:
        """Return the tokens at `index_m`, in that order."""
        return TokenColumns(
            self.sample_n[index_m],
            self.position_n[index_m],
            self.token_id_n[index_m],
            self.modality_n[index_m],
            self.norm_n[index_m],
        )


class ActivationBuffer:
    """A list of hidden states in one block of memory.

    A shard's worth of address space is taken at once; the system gives memory only as rows are
    written, so a small shard costs little and a full one is never copied to grow. A shard beyond
    `MAX_SHARD_BYTES` still fits, at the price of copies.

    Args:
        d_in: Width of a row.
        dtype: A key of `TORCH_DTYPES`.
    """

    def __init__(self, d_in: int, dtype: str) -> None:
        row_bytes = d_in * TORCH_DTYPES[dtype].itemsize
        self._dtype = dtype
        self._acts_cd = self._allocate(max(1, MAX_SHARD_BYTES // row_bytes), d_in)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    @property
    def acts_nd(self) -> torch.Tensor:
        """The rows so far, (n, d_in), a view."""
        return self._acts_cd[: self._rows]

    def append(self, acts_md: torch.Tensor) -> None:
        """Copy rows, from any device, to the end."""
        start, stop = self._rows, self._rows + len(acts_md)
        if stop > len(self._acts_cd):
            larger_cd = self._allocate(2 * stop, self._acts_cd.shape[1])
            larger_cd[:start] = self.acts_nd
            self._acts_cd = larger_cd
        self._acts_cd[start:stop] = acts_md
        self._rows = stop

    def _allocate(self, rows: int, d_in: int) -> torch.Tensor:
        """Take memory from numpy: unlike torch it asks for huge pages, and gathers gain by them."""
        return as_torch(np.empty((rows, d_in), dtype=numpy_type(self._dtype)), self._dtype)
