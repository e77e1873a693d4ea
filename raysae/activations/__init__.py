"""The activation cache: tokens' hidden states on disk, written per shard and read in random order.

The format is laid down in docs/activation-cache.md. `ShardWriter` writes one shard, `CacheReader`
reads any rows, `ReadingOrder` says which rows make up a training batch, however many ranks there
are.
"""

from raysae.activations.format import row_bytes
from raysae.activations.index import write_dataset_index
from raysae.activations.order import ReadingOrder
from raysae.activations.reader import CachedTokens, CacheReader
from raysae.activations.settings import CacheSettings
from raysae.activations.writer import ShardFiles, ShardWriter

__all__ = [
    "CacheReader",
    "CacheSettings",
    "CachedTokens",
    "ReadingOrder",
    "ShardFiles",
    "ShardWriter",
    "row_bytes",
    "write_dataset_index",
]
