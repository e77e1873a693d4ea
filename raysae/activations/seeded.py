"""Randomness that is a pure function of its key, the same on every machine and numpy version.

Only numpy's seed sequences and raw bit generators are used: unlike `Generator`'s methods, their
streams are guaranteed not to change between versions.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from raysae.splitmix import mix

_MASK_64 = (1 << 64) - 1

FEISTEL_ROUNDS = 6
"""Four rounds already look random for large ranges; the two more are for ranges of a few rows."""


def random_keys(n: int, *key: int | str) -> npt.NDArray[np.uint64]:
    """Return n random 64-bit numbers, uint64 (n,), decided by the key alone."""
    # The length goes in front, because a seed sequence takes (1,) and (1, 0) for the same.
    sequence = np.random.SeedSequence([len(key), *map(_as_int, key)])
    return np.asarray(np.random.PCG64(sequence).random_raw(n), dtype=np.uint64)


def permutation(n: int, *key: int | str) -> npt.NDArray[np.int64]:
    """Return a permutation of 0 … n-1, int64 (n,), decided by the key alone."""
    return np.argsort(random_keys(n, *key), kind="stable")


def draw(n: int, count: int, *key: int | str) -> npt.NDArray[np.int64]:
    """Return `count` of the numbers 0 … n-1 in ascending order, int64, decided by the key alone."""
    return np.sort(permutation(n, *key)[:count])


def shuffled_index(
    index_n: npt.NDArray[np.int64],
    size_n: npt.NDArray[np.int64],
    key_n: npt.NDArray[np.uint64],
) -> npt.NDArray[np.int64]:
    """Return π(index) for a keyed random permutation π of 0 … size-1, without writing π down.

    Each element has its own permutation, given by its size and key. A Feistel network over pairs
    (left, right) in base m = ⌈√size⌉ permutes 0 … m²-1; results at or above the size are put
    through again until they fall below it ("cycle walking": Black and Rogaway, Ciphers with
    Arbitrary Finite Domains, CT-RSA 2002), which keeps it a permutation.

    Args:
        index_n: int64 (n,), each at least 0 and below its size.
        size_n: int64 (n,), below 2⁵⁰, where ⌈√size⌉ is exact in float64.
        key_n: uint64 (n,).
    """
    result_n = np.empty_like(index_n)
    pending_m = np.arange(len(index_n))
    value_m, size_m, key_m = index_n, size_n, key_n
    while len(pending_m):
        value_m = _feistel(value_m, size_m, key_m)
        outside_m = value_m >= size_m
        result_n[pending_m[~outside_m]] = value_m[~outside_m]
        pending_m, value_m = pending_m[outside_m], value_m[outside_m]
        size_m, key_m = size_m[outside_m], key_m[outside_m]
    return result_n


def _feistel(
    value_n: npt.NDArray[np.int64],
    size_n: npt.NDArray[np.int64],
    key_n: npt.NDArray[np.uint64],
) -> npt.NDArray[np.int64]:
    base_n = np.ceil(np.sqrt(size_n)).astype(np.int64)
    left_n, right_n = value_n // base_n, value_n % base_n
    for number in range(FEISTEL_ROUNDS):
        key_n = mix(key_n + np.uint64(number))
        noise_n = mix(key_n ^ right_n.astype(np.uint64)) % base_n.astype(np.uint64)
        left_n, right_n = right_n, (left_n + noise_n.astype(np.int64)) % base_n
    return left_n * base_n + right_n


def _as_int(part: int | str) -> int:
    """Turn one part of a key into a non-negative number below 2⁶⁴."""
    if isinstance(part, str):
        return int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "little")
    return part & _MASK_64
