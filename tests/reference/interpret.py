"""Slow twins of the report's statistics: loops over pairs and over a grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

GRID = 200_000


def auc(intact: Sequence[float], corrupted: Sequence[float]) -> float:
    """Count the pairs that are in the right order, ties half."""
    won = 0.0
    for good in intact:
        for bad in corrupted:
            won += 1.0 if good > bad else 0.5 if good == bad else 0.0
    return won / (len(intact) * len(corrupted))


def ranks(values: Sequence[float]) -> list[float]:
    """Rank each value: 1 + how many are smaller + half of how many others are equal."""
    return [
        1.0 + sum(other < value for other in values) + (values.count(value) - 1) / 2
        for value in values
    ]


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Covariance over the product of standard deviations."""
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    x_square = sum((a - x_mean) ** 2 for a in x)
    y_square = sum((b - y_mean) ** 2 for b in y)
    return covariance / math.sqrt(x_square * y_square)


def compatible(value: float, variance: Callable[[float], float]) -> tuple[float, float]:
    """Return the least and the greatest p on a grid with |p − value| ≤ 1.96 √variance(p)."""
    inside = [
        p
        for p in (index / GRID for index in range(GRID + 1))
        if abs(p - value) <= 1.959963984540054 * math.sqrt(max(variance(p), 0.0)) + 1e-12
    ]
    return min(inside), max(inside)


def hanley_mcneil_variance(theta: float, m: int, n: int) -> float:
    """Hanley and McNeil's variance of an AUC by Q1 and Q2, each with half of the pairs m + n − 2.

    Newcombe's method 5 puts the mean of m − 1 and n − 1 in place of each.
    """
    q1 = theta / (2 - theta)
    q2 = 2 * theta**2 / (1 + theta)
    mean = (m + n) / 2 - 1
    return (theta * (1 - theta) + mean * (q1 - theta**2) + mean * (q2 - theta**2)) / (m * n)
