"""Which tokens count as text and which as image, and which samples are drawn.

Letters: n tokens, m active (token, feature) entries.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from raysae.errors import DataError
from raysae.sample import Modality
from raysae.splitmix import GOLDEN_GAMMA, mix

if TYPE_CHECKING:
    from raysae.sae import Codes

Int64Array = npt.NDArray[np.int64]

TEXT = 0
IMAGE = 1
NEITHER = 2
"""The side of a token that counts for no modality."""

_DRAW_BLOCK = 1 << 20


def token_sides(
    modality_n: npt.NDArray[np.uint8], position_n: npt.NDArray[np.int32], *, bos_is_text: bool
) -> npt.NDArray[np.uint8]:
    """Say for each token whether it counts as text (0), as image (1) or as neither (2).

    Special tokens count as neither, except that with `bos_is_text` the special token at position 0
    (the begin-of-sequence token, where the model has one) counts as text.

    Args:
        modality_n: uint8 (n,), a `Modality` each.
        position_n: int32 (n,), position in the sample.
        bos_is_text: See above.

    Returns:
        uint8 (n,).

    Raises:
        DataError: A number is no modality.
    """
    if len(modality_n) and int(modality_n.max()) > int(Modality.SPECIAL):
        raise DataError(
            f"Modality {int(modality_n.max())} is unknown; tokens are text (0), image (1) or "
            "special (2)."
        )
    side_n = modality_n.astype(np.uint8)
    if bos_is_text:
        side_n[(modality_n == Modality.SPECIAL) & (position_n == 0)] = TEXT
    return side_n


def check_codes(codes: Codes, n_tokens: int, n_features: int) -> None:
    """Refuse codes that do not belong to these tokens or this SAE.

    Raises:
        DataError: A token or feature number is out of range.
    """
    for name, column, limit in (
        ("token", codes.token_m, n_tokens),
        ("feature", codes.feature_m, n_features),
    ):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < limit:
            raise DataError(
                f"The codes' {name}s must lie in [0, {limit}), got {int(column.min())} to "
                f"{int(column.max())}; they belong to another batch or SAE."
            )


def draw_ordinals(n_rows: int, n_samples: int, seed: int) -> Int64Array:
    """Draw rows of a corpus for the feature weights, the same ones whatever reads them.

    Each row has a hash of (seed, ordinal); the lowest hashes are drawn. No generator's stream is
    involved, so that the draw outlives library versions.

    Args:
        n_rows: Rows of the corpus snapshot.
        n_samples: How many to draw; 0, or as many as there are rows, draws all.
        seed: Decides the draw.

    Returns:
        int64 ordinals, ascending, without repeats.
    """
    if n_samples == 0 or n_samples >= n_rows:
        return np.arange(n_rows, dtype=np.int64)
    drawn = np.empty(0, dtype=np.int64)
    hashes = np.empty(0, dtype=np.uint64)
    for start in range(0, n_rows, _DRAW_BLOCK):
        block = np.arange(start, min(start + _DRAW_BLOCK, n_rows), dtype=np.int64)
        block_hashes = _hashes(block.astype(np.uint64), seed)
        if len(hashes) == n_samples:
            lower = block_hashes < hashes[-1]
            block, block_hashes = block[lower], block_hashes[lower]
        drawn = np.concatenate([drawn, block])
        hashes = np.concatenate([hashes, block_hashes])
        lowest = np.lexsort((drawn, hashes))[:n_samples]
        drawn, hashes = drawn[lowest], hashes[lowest]
    return np.sort(drawn)


def random_score(sample_id: str, seed: int) -> float:
    """Return a number in [0, 1) that looks random and depends on seed and sample id alone."""
    digest = hashlib.blake2b(f"{seed}:{sample_id}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / float(1 << 53)


def _hashes(value_n: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Return a hash of each value, salted with the seed."""
    salt = int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "big")
    return mix(value_n * GOLDEN_GAMMA + np.uint64(salt))
