"""Which tokens are cached, and in what order training reads them."""

from __future__ import annotations

from dataclasses import dataclass

from raysae.errors import SettingsError


@dataclass(frozen=True)
class CacheSettings:
    """What the cache keeps (content: part of every id).

    Attributes:
        tokens_per_sample: Keep at most so many tokens of a sample, drawn at random; 0 keeps all.
        image_fraction: Keep, of each sample, as many tokens as can be had with this share of image
            tokens, between 0 and 1; below 0, tokens come as the model gives them. A sample without
            image tokens then keeps none unless the share is 0, one with nothing else none unless it
            is 1.
        seed: Decides which tokens are drawn, and their order inside a shard.
        max_norm_ratio: Drop tokens whose Euclidean norm exceeds this multiple of the median norm of
            the shard's kept tokens (attention sinks, mostly), and those whose norm is not finite;
            0 keeps all.
    """

    tokens_per_sample: int = 0
    image_fraction: float = -1.0
    seed: int = 42
    max_norm_ratio: float = 0.0

    def __post_init__(self) -> None:
        if self.tokens_per_sample < 0:
            raise SettingsError(
                f"cache.tokens_per_sample: must be 0 (all) or more, got {self.tokens_per_sample}."
            )
        if not self.image_fraction <= 1:
            raise SettingsError(
                "cache.image_fraction: must lie between 0 and 1, or below 0 to leave the tokens as "
                f"they come, got {self.image_fraction}."
            )
        if self.seed < 0:
            raise SettingsError(f"cache.seed: must be 0 or more, got {self.seed}.")
        if not self.max_norm_ratio >= 0:
            raise SettingsError(
                f"cache.max_norm_ratio: must be 0 (off) or more, got {self.max_norm_ratio}."
            )


@dataclass(frozen=True)
class ReadingSettings:
    """In what order training reads the tokens (content: part of an SAE's id).

    Attributes:
        mix_shards: A batch is drawn from so many shards, whose rows are mixed with one another; the
            next ones follow when all their rows are read. Of a bucket, two such windows should
            fit the nodes' disks (`RAYSAE_NODE_CACHE_BYTES`).
        stream: Compute the hidden states anew in every epoch and hand them to training, instead of
            caching them on a disk first; `run.min_actors` and `run.max_actors` are then those of
            each training rank.
    """

    mix_shards: int = 4
    stream: bool = False

    def __post_init__(self) -> None:
        if self.mix_shards < 1:
            raise SettingsError(f"reading.mix_shards: must be 1 or more, got {self.mix_shards}.")
