"""What a done mark says of a shard's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from raysae.activations.format import Compression
from raysae.artifacts import MARK_SUFFIX, METADATA_FILE
from raysae.errors import DataError
from raysae.storage import Directory, parse_json


@dataclass(frozen=True)
class CachedShard:
    """One shard of a cache, as its mark describes it under `cached`.

    Attributes:
        data: Name of the token file.
        samples: Name of the samples file.
        rows: Tokens in the token file.
        n_samples: Samples, those without a kept token included.
        dropped: Tokens that were not written, by rule: `tokens_per_sample`, `image_fraction`,
            `max_norm_ratio`.
        d_in: Width of the hidden states.
        dtype: `float32`, `float16` or `bfloat16`.
        compression: Of the token file's buffers: `none` or `zstd`.
        batch_rows: Rows in each of its record batches but the last.
        offsets: Of each record batch's first hidden state, bytes from the file's start; none where
            they are compressed.
    """

    data: str
    samples: str
    rows: int
    n_samples: int
    dropped: Mapping[str, int]
    d_in: int
    dtype: str
    compression: Compression
    batch_rows: int
    offsets: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as the mark holds it."""
        return {**asdict(self), "offsets": list(self.offsets)}

    @classmethod
    def of_mark(cls, mark: Mapping[str, Any], where: str) -> CachedShard:
        """Read a shard's mark.

        Args:
            mark: Its content.
            where: Its path or URI, for messages.

        Raises:
            DataError: It is no mark of a cache's shard.
        """
        cached = mark.get("cached")
        names = {field.name for field in fields(cls)}
        if not isinstance(cached, dict) or set(cached) != names:
            raise DataError(
                f"{where} does not describe a shard of an activation cache of this version; delete "
                "it and run the job again, which makes this shard anew."
            )
        return cls(**{**cached, "offsets": tuple(cached["offsets"])})


def cached_shards(directory: Directory) -> list[CachedShard]:
    """Return the shards of a finished cache, in order, as their marks describe them.

    Args:
        directory: The cache.

    Raises:
        DataError: It is not finished, or a mark is damaged or of another version.
    """
    names = sorted(entry.key for entry in directory.entries() if entry.key.endswith(MARK_SUFFIX))
    shards = []
    for name, content in zip(names, directory.read_many(names), strict=True):
        where = directory.describe(name)
        shards.append(CachedShard.of_mark(parse_json(content or b"{}", where), where))
    try:
        finished = directory.read_json(METADATA_FILE)
    except FileNotFoundError:
        finished = {}
    if finished.get("data_files") != [shard.data for shard in shards]:
        raise DataError(
            f"{directory} is not finished, or lacks shards; run the job that makes it again."
        )
    return shards
