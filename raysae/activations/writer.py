"""Write one shard of the activation cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raysae.activations.buffer import Memory
from raysae.activations.cached_shard import CachedShard
from raysae.activations.collected import ShardTokens
from raysae.activations.format import COMPRESSED_SUFFIX, Compression
from raysae.activations.settings import CacheSettings
from raysae.activations.shard_file import write_samples_file, write_token_file
from raysae.artifacts import CHECKSUM, FileRecord, Publication
from raysae.sample import TokenBatch
from raysae.storage import Directory


@dataclass(frozen=True)
class ShardFiles:
    """What `ShardWriter.finish` published.

    Attributes:
        records: The token file `<shard>-<checksum>.arrow` (`….zstd.arrow` if it is compressed) and
            the samples file `<shard>-<checksum>.samples.arrow`.
        shard: What is in them.
    """

    records: Sequence[FileRecord]
    shard: CachedShard


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
        compression: How the token file's buffers are stored; readers see the same numbers.
        memory: Where the tokens are kept until then, if it is to be used for other shards, too.

    Raises:
        SettingsError: A dtype that a cache cannot hold.
    """

    def __init__(
        self,
        directory: Directory,
        shard_name: str,
        d_in: int,
        dtype: str,
        settings: CacheSettings,
        *,
        compression: Compression = "none",
        memory: Memory | None = None,
    ) -> None:
        self._directory = directory
        self._shard_name = shard_name
        self._format = (d_in, dtype, compression)
        self._tokens = ShardTokens(shard_name, d_in, dtype, settings, memory)

    def add(self, sample_index: int, sample_id: str, ordinal: int, batch: TokenBatch) -> None:
        """Add all tokens of one sample; see `ShardTokens.add`."""
        self._tokens.add(sample_index, sample_id, ordinal, batch)

    def finish(self) -> ShardFiles:
        """Write and publish the shard's two files.

        The names carry a checksum of the content, so that two runs at once that computed other bits
        (another GPU, say) never mix their files: the done mark names those that count.

        Returns:
            The names in the directory, and the counts.
        """
        d_in, dtype, compression = self._format
        tokens = self._tokens.in_order()
        files = Publication(self._directory)
        stem = f"{self._shard_name}-{CHECKSUM}"
        suffix = ".arrow" if compression == "none" else COMPRESSED_SUFFIX
        with (
            files.writing(f"{stem}.samples.arrow") as samples_file,
            files.appending(stem + suffix) as token_file,  # published first, both after the block
        ):
            layout = write_token_file(token_file, tokens, compression)
            write_samples_file(samples_file, tokens.samples)
        tokens.release()
        data, samples = files.records
        shard = CachedShard(
            data=data.name,
            samples=samples.name,
            rows=len(tokens.source_m),
            n_samples=len(self._tokens),
            dropped=dict(self._tokens.dropped),
            d_in=d_in,
            dtype=dtype,
            compression=compression,
            batch_rows=layout.batch_rows,
            offsets=layout.offsets,
        )
        return ShardFiles(files.records, shard)
