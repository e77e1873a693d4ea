"""The activation cache: tokens' hidden states on disk, written per shard and read in random order.

The format is laid down in docs/activation-cache.md. `ShardWriter` writes one shard, `CacheReader`
reads any rows, `ReadingOrder` says which rows make up a training batch, however many ranks there
are, `BatchReader` reads these ahead of their use, and `TokenLookup` finds single tokens.
"""

from raysae.activations.batches import BatchReader
from raysae.activations.buffer import Memory
from raysae.activations.cached_shard import CachedShard, cached_shards
from raysae.activations.format import Compression, row_bytes
from raysae.activations.index import write_dataset_index
from raysae.activations.lookup import TokenLookup
from raysae.activations.order import ReadingOrder
from raysae.activations.reader import CachedTokens, CacheReader
from raysae.activations.samples_table import read_samples
from raysae.activations.settings import CacheSettings, ReadingSettings
from raysae.activations.writer import ShardFiles, ShardWriter

__all__ = [
    "BatchReader",
    "CacheReader",
    "CacheSettings",
    "CachedShard",
    "CachedTokens",
    "Compression",
    "Memory",
    "ReadingOrder",
    "ReadingSettings",
    "ShardFiles",
    "ShardWriter",
    "TokenLookup",
    "cached_shards",
    "read_samples",
    "row_bytes",
    "write_dataset_index",
]
