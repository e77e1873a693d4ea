"""SplitMix64's finaliser: 64 bits in, 64 bits out, each of them moved by every bit that came in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""2⁶⁴ divided by the golden ratio, odd: SplitMix64's step from one number to the next."""


def mix(value_n: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the number that SplitMix64 gives in each state, uint64 (n,).

    Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    value_n = value_n + GOLDEN_GAMMA
    value_n = (value_n ^ (value_n >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_n = (value_n ^ (value_n >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_n ^ (value_n >> np.uint64(31))
