"""Small caches for the tests of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from raysae.activations import CacheSettings, Compression, ShardFiles, ShardWriter
from raysae.activations.format import TORCH_DTYPES
from raysae.sample import TokenBatch
from raysae.storage import Directory
from tests.storages import at

DTYPES = tuple(TORCH_DTYPES)


def token_batch(n: int, d_in: int, dtype: str = "float32", seed: int = 0) -> TokenBatch:
    """Return one sample's tokens with random bits for hidden states: NaNs, infinities and all."""
    rng = np.random.default_rng(seed)
    torch_dtype = TORCH_DTYPES[dtype]
    raw = torch.from_numpy(rng.integers(0, 256, (n, d_in * torch_dtype.itemsize), dtype=np.uint8))
    acts_nd = raw.view(torch_dtype) if n else torch.empty((0, d_in), dtype=torch_dtype)
    return TokenBatch(
        sample_n=np.full(n, 99, np.int32),
        position_n=np.arange(n, dtype=np.int32),
        token_id_n=rng.integers(0, 32_000, n, dtype=np.int32),
        modality_n=rng.integers(0, 3, n, dtype=np.uint8),
        acts_nd=acts_nd,
    )


def write_shard(
    directory: Path,
    batches: list[TokenBatch],
    name: str = "shard-00000",
    settings: CacheSettings | None = None,
    order: list[int] | None = None,
    *,
    into: Directory | None = None,
    compression: Compression = "none",
) -> ShardFiles:
    """Write samples `id-0`, `id-1`, … with ordinals 100, 101, …, added in the given order.

    `into` is a directory of any storage, instead of one of this machine.
    """
    dtype = str(batches[0].acts_nd.dtype).removeprefix("torch.")
    writer = ShardWriter(
        into or at(directory),
        name,
        batches[0].acts_nd.shape[1],
        dtype,
        settings or CacheSettings(),
        compression=compression,
    )
    for index in order or range(len(batches)):
        writer.add(index, f"id-{index}", 100 + index, batches[index])
    return writer.finish()


def bits(acts_nd: torch.Tensor) -> bytes:
    """Return a tensor's bytes: NaNs compare equal to themselves there."""
    return acts_nd.contiguous().view(torch.uint8).numpy().tobytes()
