"""How fast the machine at hand multiplies matrices: what predicted times rest on."""

from __future__ import annotations

import statistics
import time
from functools import cache

import torch

SUSTAINED_SHARE = 0.6
"""Of the rate of large matrix products, what a model's forward pass reaches: attention, norms and
the reading of weights take the rest."""

GPU_FLOPS = {"bfloat16": 300e12, "float16": 300e12, "float32": 30e12}
"""Sustained operations a second, by torch's name of the format, that are assumed where the planning
machine has no GPU to measure: about an H100's, without TF32."""

_ROWS, _WIDTH = 1024, 4096
_MEASURED_S = 0.5
_WARM_UP = 2


def sustained_flops(device: str, dtype: str, cpus: int) -> float:
    """Return floating-point operations a second of a forward pass, measured for half a second.

    Args:
        device: `cpu` or `cuda`. A GPU that this machine lacks is assumed, not measured.
        dtype: torch's name of the format of weights and activations.
        cpus: Threads that multiply, on the CPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        return GPU_FLOPS[dtype]
    return SUSTAINED_SHARE * matrix_rate(device, dtype, cpus)


@cache
def matrix_rate(device: str, dtype: str, cpus: int) -> float:
    """Return operations a second of a product as large as a block's, measured for half a second.

    Args:
        device: `cpu` or `cuda`.
        dtype: torch's name of the format of the factors.
        cpus: Threads that multiply, on the CPU.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(cpus)
    try:
        return _measured_rate(torch.device(device), getattr(torch, dtype))
    finally:
        torch.set_num_threads(threads)


def _measured_rate(device: torch.device, dtype: torch.dtype) -> float:
    left = torch.randn(_ROWS, _WIDTH, device=device).to(dtype)
    right = torch.randn(_WIDTH, _WIDTH, device=device).to(dtype)
    seconds: list[float] = []
    while len(seconds) < _WARM_UP + 3 or sum(seconds[_WARM_UP:]) < _MEASURED_S:
        started = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2.0 * _ROWS * _WIDTH * _WIDTH / statistics.median(seconds[_WARM_UP:])
