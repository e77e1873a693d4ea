"""Sums over the ranks of a data-parallel training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """The ranks that train one SAE together, each on its slice of every batch.

    Attributes:
        rank: This one.
        world_size: How many; above 1 the default process group of `torch.distributed` is used.
    """

    rank: int = 0
    world_size: int = 1

    def rows(self, global_rows: int) -> slice:
        """Return this rank's part of `global_rows` rows; sizes differ by at most 1."""
        return slice(
            global_rows * self.rank // self.world_size,
            global_rows * (self.rank + 1) // self.world_size,
        )

    def sum_in_place(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the ranks; the transfers overlap."""
        if self.world_size > 1:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def minimum_in_place(self, tensor: torch.Tensor) -> None:
        """Replace the tensor by its minimum over the ranks."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.MIN)

    def copy_from_first(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by rank 0's."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)
