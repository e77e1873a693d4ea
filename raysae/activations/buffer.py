"""One shard's tokens in memory, sample by sample, until they are written in another order."""

from __future__ import annotations

import threading
from collections import defaultdict
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


class Memory:
    """Blocks of memory that one shard leaves to the next; safe for threads.

    Memory that a process takes anew is made by the system page by page, several times slower than
    memory that is there is written. What is kept is as much as was in use at once.
    """

    def __init__(self) -> None:
        self._free: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)
        self._lock = threading.Lock()

    def take(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Return a block, whatever it holds: one that was given back if there is one."""
        with self._lock:
            if self._free[n_bytes]:
                return self._free[n_bytes].pop()
        # From numpy: unlike torch it asks for huge pages, and gathers gain by them.
        return np.empty(n_bytes, np.uint8)

    def give_back(self, block: npt.NDArray[np.uint8]) -> None:
        """Leave a block that is no longer in use to whoever takes one of its size."""
        with self._lock:
            self._free[len(block)].append(block)


class ActivationBuffer:
    """A list of hidden states in one block of memory.

    A shard's worth of address space is taken at once; the system gives memory only as rows are
    written, so a small shard costs little and a full one is never copied to grow. A shard beyond
    `MAX_SHARD_BYTES` still fits, at the price of copies.

    Args:
        d_in: Width of a row.
        dtype: A key of `TORCH_DTYPES`.
        memory: Where the block comes from.

    Attributes:
        memory: Where the block comes from.
    """

    def __init__(self, d_in: int, dtype: str, memory: Memory) -> None:
        self._dtype = dtype
        self._d_in = d_in
        self.memory = memory
        self._block: npt.NDArray[np.uint8] | None = memory.take(MAX_SHARD_BYTES)
        self._acts_cd = self._rows_of(self._block)
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
            larger_cd = self._rows_of(np.empty(2 * stop * self._row_bytes, np.uint8))
            larger_cd[:start] = self.acts_nd
            self.release()
            self._acts_cd = larger_cd
        self._acts_cd[start:stop] = acts_md
        self._rows = stop

    def release(self) -> None:
        """Leave the block to the next shard; nothing may read the rows any more."""
        if self._block is not None:
            self.memory.give_back(self._block)
        self._block = None

    @property
    def _row_bytes(self) -> int:
        return self._d_in * TORCH_DTYPES[self._dtype].itemsize

    def _rows_of(self, block: npt.NDArray[np.uint8]) -> torch.Tensor:
        """View a block as rows, as many as fit."""
        rows = len(block) // self._row_bytes
        stored_cd = block[: rows * self._row_bytes].view(numpy_type(self._dtype))
        return as_torch(stored_cd.reshape(rows, self._d_in), self._dtype)
