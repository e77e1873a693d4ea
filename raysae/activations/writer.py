"""Write one shard of the activation cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raysae.activations.buffer import ActivationBuffer, TokenColumns
from raysae.activations.format import dtype_name, known_dtype
from raysae.activations.seeded import permutation
from raysae.activations.selection import keep_by_norm, keep_of_sample
from raysae.activations.settings import CacheSettings
from raysae.activations.shard_file import write_samples_file, write_token_file
from raysae.artifacts import CHECKSUM, FileRecord, Publication
from raysae.errors import SettingsError
from raysae.sample import Modality, TokenBatch
from raysae.storage import Directory

_NORM_ROWS = 4096
"""Rows whose norms are taken at a time."""


@dataclass(frozen=True)
class ShardFiles:
    """What `ShardWriter.finish` published.

    Attributes:
        records: The token file `<shard>-<checksum>.arrow` and the samples file
            `<shard>-<checksum>.samples.arrow`.
        rows: Tokens written.
        n_samples: Samples added, those without a kept token included.
        dropped: Tokens that were not written, by rule: `tokens_per_sample`, `image_fraction`,
            `max_norm_ratio`.
    """

    records: Sequence[FileRecord]
    rows: int
    n_samples: int
    dropped: Mapping[str, int]

    @property
    def data(self) -> str:
        """Name of the token file."""
        return self.records[0].name

    @property
    def samples(self) -> str:
        """Name of the samples file."""
        return self.records[1].name

    def summary(self) -> dict[str, Any]:
        """Return what a done mark says of the shard's tokens."""
        return {
            "data": self.data,
            "samples": self.samples,
            "rows": self.rows,
            "n_samples": self.n_samples,
            "dropped": dict(self.dropped),
        }


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


class ShardWriter:
    """Collects a shard's tokens in memory and writes them, permuted, when it is finished.

    Nothing appears on the disk before `finish`, so an abandoned writer leaves nothing behind. The
    files depend on what was added, the shard's name and the settings; not on the order in which
    samples were added.

    Args:
        directory: Where the files go.
        shard_name: As in `ShardSpec.name`; part of the permutation's key.
        d_in: Width of the hidden states.
        dtype: `float32`, `float16` or `bfloat16`: the dtype of what is added, kept to the bit.
        settings: Which tokens are kept.

    Raises:
        SettingsError: A dtype that a cache cannot hold.
    """

    def __init__(
        self, directory: Directory, shard_name: str, d_in: int, dtype: str, settings: CacheSettings
    ) -> None:
        self._directory = directory
        self._shard_name = shard_name
        self._d_in = d_in
        self._dtype = known_dtype(dtype)
        self._settings = settings
        self._buffer = ActivationBuffer(d_in, dtype)
        self._added: dict[int, _AddedSample] = {}
        self._dropped = {"tokens_per_sample": 0, "image_fraction": 0, "max_norm_ratio": 0}

    def add(self, sample_index: int, sample_id: str, ordinal: int, batch: TokenBatch) -> None:
        """Add all tokens of one sample.

        Args:
            sample_index: Orders the samples inside the shard; each number once, gaps allowed.
            sample_id: As in `Sample`.
            ordinal: As in `Sample`; together with the seed it decides which tokens are drawn.
            batch: This sample's tokens alone (`sample_n` is not looked at), on any device.

        Raises:
            SettingsError: The hidden states have another width or dtype than the shard.
            ValueError: The sample index was added before.
        """
        self._check(sample_index, batch)
        kept = keep_of_sample(batch.modality_n, ordinal, self._settings)
        self._dropped["image_fraction"] += kept.dropped_by_fraction
        self._dropped["tokens_per_sample"] += kept.dropped_by_limit
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
        )

    def finish(self) -> ShardFiles:
        """Write and publish the shard's two files.

        The names carry a checksum of the content, so that two runs at once that computed other bits
        (another GPU, say) never mix their files: the done mark names those that count.

        Returns:
            The names in the directory, and the counts.
        """
        samples = [self._added[index] for index in sorted(self._added)]
        columns, source_n = self._in_file_order(samples)
        files = Publication(self._directory)
        stem = f"{self._shard_name}-{CHECKSUM}"
        with (
            files.writing(f"{stem}.samples.arrow") as samples_file,
            files.writing(f"{stem}.arrow") as token_file,  # published first, both after the block
        ):
            write_token_file(token_file, columns, self._buffer.acts_nd, source_n)
            write_samples_file(samples_file, _samples_columns(samples, columns))
        return ShardFiles(files.records, len(source_n), len(samples), dict(self._dropped))

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

    def _in_file_order(
        self, samples: Sequence[_AddedSample]
    ) -> tuple[TokenColumns, npt.NDArray[np.int64]]:
        """Return the columns in the order of writing, and each written token's row in the buffer.

        Samples are put in order before the permutation, so that the order of adding drops out.
        """
        source_n = _concatenate([sample.rows for sample in samples], np.int64)
        columns = TokenColumns(
            np.repeat(np.arange(len(samples), dtype=np.int32), [len(s.rows) for s in samples]),
            _concatenate([sample.position_m for sample in samples], np.int32),
            _concatenate([sample.token_id_m for sample in samples], np.int32),
            _concatenate([sample.modality_m for sample in samples], np.uint8),
        )
        kept_n = np.arange(len(source_n))
        if self._settings.max_norm_ratio > 0:
            norm_n = _norms(self._buffer.acts_nd)[source_n]
            kept_n = np.flatnonzero(keep_by_norm(norm_n, self._settings.max_norm_ratio))
            self._dropped["max_norm_ratio"] = len(source_n) - len(kept_n)
        order_n = kept_n[permutation(len(kept_n), self._settings.seed, self._shard_name)]
        return columns.take(order_n), source_n[order_n]


def _norms(acts_nd: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return each row's Euclidean norm, float32 (n,)."""
    norm_n = np.empty(len(acts_nd), np.float32)
    # By blocks: torch converts all that it is given to float32 first.
    for start in range(0, len(acts_nd), _NORM_ROWS):
        block = acts_nd[start : start + _NORM_ROWS]
        norm_n[start : start + len(block)] = torch.linalg.vector_norm(
            block, dim=1, dtype=torch.float32
        ).numpy()
    return norm_n


def _concatenate(arrays: Sequence[npt.NDArray[Any]], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Concatenate arrays, of which there may be none."""
    return np.concatenate([np.empty(0, dtype), *arrays])


def _samples_columns(
    samples: Sequence[_AddedSample], columns: TokenColumns
) -> dict[str, Sequence[Any]]:
    """Return the samples table's columns; `columns` are the tokens that were written."""
    return {
        "sample_id": [sample.sample_id for sample in samples],
        "ordinal": [sample.ordinal for sample in samples],
        "tokens": [sample.n_tokens for sample in samples],
        "text_tokens": [sample.n_text for sample in samples],
        "image_tokens": [sample.n_image for sample in samples],
        "kept_tokens": np.bincount(columns.sample_n, minlength=len(samples)).tolist(),
    }
