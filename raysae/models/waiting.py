"""What keeps a forward pass from waiting for the device between two kernels."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache


class KeepsNothing(Cache):
    """A key-value cache that stays empty.

    Without any cache transformers looks, on the device, for several sequences packed into one row,
    and the host waits for the answer; with one it does not.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a layer's keys and values as they came."""
        del layer_idx, args, kwargs
        return key_states, value_states


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move a tensor of the host's memory to a device without waiting for it."""
    if device.type == "cuda":
        return pinned(tensor).to(device, non_blocking=True)
    return tensor.to(device)


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor in memory that a GPU reads by itself, copied if it is not there yet."""
    return tensor if tensor.is_pinned() else tensor.pin_memory()
