"""How much memory and work an SAE will need, before anything starts."""

from __future__ import annotations

import torch

from raysae.sae.settings import SaeSettings
from raysae.sae.weights import row_chunks

_ADAM_COPIES = 4
"""Weights, gradients, and Adam's two moments."""

_BYTES_PER_CODE = 80
"""Of one (token, feature) entry: features, values, gradients and the sort by feature."""


def plan_training_memory(
    settings: SaeSettings,
    d_in: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    world_size: int = 1,
) -> int:
    """Predict the peak bytes that one rank's training holds on its device.

    Weights, gradients, Adam's moments, the batch, the buffer of pre-activations and the sparse
    codes; not the interpreter, the libraries or the reader's own buffers.

    Args:
        settings: The training's.
        d_in: Size of a hidden state.
        dtype: Of the weights.
        device: Device type, `cpu` or `cuda`; it decides the size of the buffer.
        world_size: Ranks that share the batch.
    """
    size = int(dtype.itemsize)
    matrix = settings.d_sae * d_in * size
    tokens = -(-settings.batch_tokens // world_size)
    # A copy of one matrix at a time: adding AuxK's gradient, or folding the scale at the end.
    weights = (2 * _ADAM_COPIES + 1) * matrix
    batch = 5 * tokens * d_in * size
    rows = int(row_chunks(tokens, settings.d_sae, torch.device(device))[0].stop)
    chunk = rows * settings.d_sae
    if settings.architecture == "relu":
        return weights + batch + 3 * chunk * size
    # Away from the CPU ties are resolved in whole matrices: masks, counts and a copy for AuxK.
    buffer = chunk * (size if device == "cpu" else 2 * size + 20)
    codes = tokens * (settings.k + settings.aux_k) * _BYTES_PER_CODE
    if settings.aux_k:
        weights += matrix
    return weights + batch + buffer + codes


def plan_encoding_memory(settings: SaeSettings, d_in: int) -> int:
    """Return the bytes of a loaded SAE's float32 weights; encoding works in small blocks."""
    return 2 * settings.d_sae * d_in * torch.float32.itemsize


def training_flops(settings: SaeSettings, d_in: int) -> float:
    """Return the floating-point work of training on one token.

    ReLU: five products with all features (encode, decode, and the gradients of W_dec, z and W_enc).
    TopK: one, and four with the k active ones.
    """
    if settings.architecture == "relu":
        return 10.0 * d_in * settings.d_sae
    return 2.0 * d_in * settings.d_sae + 8.0 * d_in * (settings.k + settings.aux_k)


def encoding_flops(settings: SaeSettings, d_in: int) -> float:
    """Return the floating-point work of encoding one token."""
    return 2.0 * d_in * settings.d_sae
