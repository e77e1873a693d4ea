"""A shard's tokens in memory: collected sample by sample, then put in the order of writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from raysae.activations.buffer import ActivationBuffer, Memory, TokenColumns
from raysae.activations.format import SAMPLES_SCHEMA, Compression, dtype_name, known_dtype
from raysae.activations.record_batches import record_batches
from raysae.activations.seeded import permutation
from raysae.activations.selection import keep_by_norm, keep_of_sample
from raysae.activations.settings import CacheSettings
from raysae.errors import SettingsError
from raysae.sample import Modality, TokenBatch

_NORM_BYTES = 1 << 20
"""Of float32, which torch makes of all rows that it is given first: as much as a core's own cache
holds, and far below what the system would be asked for anew each time."""


class OrderedTokens(NamedTuple):
    """A shard's tokens in the order of writing, and its samples.

    Attributes:
        columns: Of the written tokens but their hidden states, m rows.
        buffer: All hidden states that were collected.
        source_m: int64 (m,), for each written token its row in `acts_nd`.
        samples: As `SAMPLES_SCHEMA` has them.
    """

    columns: TokenColumns
    buffer: ActivationBuffer
    source_m: npt.NDArray[np.int64]
    samples: pa.Table

    @property
    def acts_nd(self) -> torch.Tensor:
        """All hidden states that were collected, (n, d_in), a view."""
        return self.buffer.acts_nd

    def batches(
        self, max_bytes: int, compression: Compression = "none"
    ) -> AbstractContextManager[Iterator[pa.RecordBatch]]:
        """Give them as `record_batches` does."""
        return record_batches(
            self.columns,
            self.acts_nd,
            self.source_m,
            max_bytes,
            compression,
            memory=self.buffer.memory,
        )

    def release(self) -> None:
        """Leave the memory to the next shard; nothing may read the tokens any more."""
        self.buffer.release()


@dataclass(frozen=True)
class _AddedSample:
    """One row of the samples table, and where the sample's kept tokens lie in the buffer."""

    sample_id: str
    ordinal: int
    n_tokens: int
    n_text: int
    n_image: int
    rows: npt.NDArray[np.int64]
    position_m: npt.NDArray[np.int32]
    token_id_m: npt.NDArray[np.int32]
    modality_m: npt.NDArray[np.uint8]
    norm_m: npt.NDArray[np.float32]


class ShardTokens:
    """Collects a shard's tokens.

    What comes out depends on what was added, the shard's name and the settings; not on the order in
    which samples were added.

    Args:
        shard_name: As in `ShardSpec.name`; part of the permutation's key.
        d_in: Width of the hidden states.
        dtype: `float32`, `float16` or `bfloat16`: the dtype of what is added, kept to the bit.
        settings: Which tokens are kept.
        memory: Where the tokens are kept, if it is to be used for other shards, too.

    Attributes:
        dropped: Tokens that are not kept, by rule: `tokens_per_sample`, `image_fraction`,
            `max_norm_ratio` (the last one after `in_order`).

    Raises:
        SettingsError: A dtype that a cache cannot hold.
    """

    def __init__(
        self,
        shard_name: str,
        d_in: int,
        dtype: str,
        settings: CacheSettings,
        memory: Memory | None = None,
    ) -> None:
        self._shard_name = shard_name
        self._d_in = d_in
        self._dtype = known_dtype(dtype)
        self._settings = settings
        self._buffer = ActivationBuffer(d_in, dtype, memory or Memory())
        self._added: dict[int, _AddedSample] = {}
        self.dropped = {"tokens_per_sample": 0, "image_fraction": 0, "max_norm_ratio": 0}

    def add(self, sample_index: int, sample_id: str, ordinal: int, batch: TokenBatch) -> None:
        """Add all tokens of one sample.

        Args:
            sample_index: Orders the samples inside the shard; each number once, gaps allowed.
            sample_id: As in `Sample`.
            ordinal: As in `Sample`; together with the seed it decides which tokens are drawn.
            batch: This sample's tokens alone (`sample_n` is not looked at), in order of position,
                on any device.

        Raises:
            SettingsError: The hidden states have another width or dtype than the shard.
            ValueError: The sample index was added before.
        """
        self._check(sample_index, batch)
        kept = keep_of_sample(batch.modality_n, ordinal, self._settings)
        self.dropped["image_fraction"] += kept.dropped_by_fraction
        self.dropped["tokens_per_sample"] += kept.dropped_by_limit
        index_m = kept.index_m
        acts_md = batch.acts_nd
        if len(index_m) < len(batch):
            acts_md = acts_md[torch.from_numpy(index_m).to(acts_md.device)]
        first_row = len(self._buffer)
        self._buffer.append(acts_md)
        self._added[sample_index] = _AddedSample(
            sample_id,
            ordinal,
            len(batch),
            int(np.count_nonzero(batch.modality_n == Modality.TEXT)),
            int(np.count_nonzero(batch.modality_n == Modality.IMAGE)),
            np.arange(first_row, len(self._buffer)),
            batch.position_n[index_m],
            batch.token_id_n[index_m],
            batch.modality_n[index_m],
            row_norms(acts_md),
        )

    def in_order(self) -> OrderedTokens:
        """Return what was collected, in the order of writing.

        Samples are put in order before the permutation, so that the order of adding drops out.
        """
        samples = [self._added[index] for index in sorted(self._added)]
        source_n = _concatenate([sample.rows for sample in samples], np.int64)
        columns = TokenColumns(
            np.repeat(np.arange(len(samples), dtype=np.int32), [len(s.rows) for s in samples]),
            _concatenate([sample.position_m for sample in samples], np.int32),
            _concatenate([sample.token_id_m for sample in samples], np.int32),
            _concatenate([sample.modality_m for sample in samples], np.uint8),
            _concatenate([sample.norm_m for sample in samples], np.float32),
        )
        if self._settings.max_norm_ratio > 0:
            within_n = keep_by_norm(columns.norm_n, self._settings.max_norm_ratio)
            self.dropped["max_norm_ratio"] = int(np.count_nonzero(~within_n))
            kept_n = np.flatnonzero(within_n)
            columns, source_n = columns.take(kept_n), source_n[kept_n]
        order_n = permutation(len(source_n), self._settings.seed, self._shard_name)
        table = _samples_table(samples, columns, order_n)
        return OrderedTokens(columns.take(order_n), self._buffer, source_n[order_n], table)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._added)

    def _check(self, sample_index: int, batch: TokenBatch) -> None:
        if sample_index in self._added:
            raise ValueError(f"{self._shard_name}: sample {sample_index} was added before")
        dtype = dtype_name(batch.acts_nd.dtype)
        shape = tuple(batch.acts_nd.shape)
        if dtype != self._dtype or shape != (len(batch), self._d_in):
            raise SettingsError(
                f"{self._shard_name}: the cache holds {self._dtype} of width {self._d_in}, but the "
                f"model gave {dtype} of shape {shape} for {len(batch)} tokens; make both alike."
            )


def row_norms(acts_nd: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return each row's Euclidean norm, computed in float32: float32 (n,)."""
    rows = max(1, _NORM_BYTES // (4 * acts_nd.shape[1])) if acts_nd.device.type == "cpu" else 1024
    blocks = [
        torch.linalg.vector_norm(block_bd, dim=1, dtype=torch.float32)
        for block_bd in torch.split(acts_nd, rows)
    ]
    norm_n: npt.NDArray[np.float32] = torch.cat(blocks).cpu().numpy()
    return norm_n


def _concatenate(arrays: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Concatenate arrays, of which there may be none."""
    return np.concatenate([np.empty(0, dtype), *arrays])


def _samples_table(
    samples: Sequence[_AddedSample], columns: TokenColumns, order_n: npt.NDArray[np.int64]
) -> pa.Table:
    """Return the samples table.

    Args:
        samples: In order.
        columns: Of the kept tokens, by sample and position.
        order_n: int64 (n,), the tokens in the order of writing; its inverse is the index by which
            a token is found again.
    """
    row_n = np.empty(len(order_n), np.int32)
    row_n[order_n] = np.arange(len(order_n), dtype=np.int32)
    counts = np.bincount(columns.sample_n, minlength=len(samples)).astype(np.int32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pa.table(
        {
            "sample_id": [sample.sample_id for sample in samples],
            "ordinal": [sample.ordinal for sample in samples],
            "tokens": [sample.n_tokens for sample in samples],
            "text_tokens": [sample.n_text for sample in samples],
            "image_tokens": [sample.n_image for sample in samples],
            "kept_tokens": counts,
            "kept_positions": pa.ListArray.from_arrays(offsets, columns.position_n),
            "kept_rows": pa.ListArray.from_arrays(offsets, row_n),
        },
        schema=SAMPLES_SCHEMA,
    )
