"""Which tokens of a sample, and then of a shard, are kept."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from raysae.activations.seeded import draw
from raysae.activations.settings import CacheSettings
from raysae.sample import Modality


class KeptTokens(NamedTuple):
    """Which tokens of one sample are kept.

    Attributes:
        index_m: int64 (m,), ascending.
        dropped_by_fraction: Tokens that `image_fraction` alone drops.
        dropped_by_limit: Tokens that `tokens_per_sample` drops beyond those.
    """

    index_m: npt.NDArray[np.int64]
    dropped_by_fraction: int
    dropped_by_limit: int


def keep_of_sample(
    modality_n: npt.NDArray[np.uint8], ordinal: int, settings: CacheSettings
) -> KeptTokens:
    """Draw a sample's tokens by `tokens_per_sample` and `image_fraction`.

    Decided by the seed and the sample's ordinal, so the same tokens are kept however the corpus is
    cut into shards.

    Args:
        modality_n: uint8 (n,).
        ordinal: The sample's row number in the corpus.
        settings: What to keep.
    """
    n, limit = len(modality_n), settings.tokens_per_sample or len(modality_n)
    if settings.image_fraction < 0:
        if n <= limit:
            return KeptTokens(np.arange(n), 0, 0)
        return KeptTokens(draw(n, limit, settings.seed, ordinal), 0, n - limit)
    image_i = np.flatnonzero(modality_n == Modality.IMAGE)
    other_o = np.flatnonzero(modality_n != Modality.IMAGE)
    fraction = settings.image_fraction
    n_fraction = sum(balanced_counts(len(image_i), len(other_o), fraction, n))
    images, others = balanced_counts(len(image_i), len(other_o), fraction, limit)
    kept_i = image_i[draw(len(image_i), images, settings.seed, ordinal, "image")]
    kept_o = other_o[draw(len(other_o), others, settings.seed, ordinal, "other")]
    index_m = np.sort(np.concatenate((kept_i, kept_o)))
    return KeptTokens(index_m, n - n_fraction, n_fraction - len(index_m))


def count_kept(modality_n: npt.NDArray[np.uint8], settings: CacheSettings) -> int:
    """Return how many tokens of a sample `keep_of_sample` keeps, without drawing them.

    Args:
        modality_n: uint8 (n,).
        settings: What to keep.
    """
    n, limit = len(modality_n), settings.tokens_per_sample or len(modality_n)
    if settings.image_fraction < 0:
        return min(n, limit)
    images = int(np.count_nonzero(modality_n == Modality.IMAGE))
    return sum(balanced_counts(images, n - images, settings.image_fraction, limit))


def balanced_counts(images: int, others: int, fraction: float, limit: int) -> tuple[int, int]:
    """Return how many image and other tokens to keep: the most that have the wanted share.

    Args:
        images: Image tokens there are.
        others: Other tokens there are.
        fraction: Wanted share of image tokens, between 0 and 1.
        limit: Most tokens to keep.
    """
    bound = float(limit)
    if fraction > 0:
        bound = min(bound, images / fraction)
    if fraction < 1:
        bound = min(bound, others / (1 - fraction))
    # 3 / (1 - 0.7) is a little less than 10 in floating point, and 10 tokens can be had.
    total = int(bound + 1e-9)
    kept_images = min(images, round(fraction * total))
    return kept_images, min(others, total - kept_images)


def keep_by_norm(norm_n: npt.NDArray[np.float32], max_ratio: float) -> npt.NDArray[np.bool_]:
    """Mark the tokens whose norm is finite and at most `max_ratio` times the median norm.

    The median is taken over the finite norms.

    Args:
        norm_n: float32 (n,).
        max_ratio: Above 0.
    """
    finite_n = np.isfinite(norm_n)
    if not finite_n.any():
        return finite_n
    # In float64 the product cannot overflow, and it is the same on every machine.
    bound = max_ratio * float(np.median(norm_n[finite_n].astype(np.float64)))
    return finite_n & (norm_n.astype(np.float64) <= bound)
