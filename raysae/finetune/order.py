"""Which rows are held out, and which rows each step sees: pure functions of the seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HELD_OUT_STREAM = 0
"""First word of the seed for the split, so that it and the order draw from different streams."""

ORDER_STREAM = 1
"""First word of the seed for the order of the rows."""


def split_rows(
    rows: int, eval_fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split row numbers into training and held-out ones, each ascending.

    Args:
        rows: Number of usable rows.
        eval_fraction: Share to hold out. Above 0 at least one row is, and always one is left to
            train on.
        seed: Decides which.

    Returns:
        int64 (train,) and int64 (held out,), disjoint, together `0 … rows - 1`.
    """
    held_out = min(max(round(rows * eval_fraction), 1), rows - 1) if eval_fraction > 0 else 0
    shuffled = np.random.default_rng([HELD_OUT_STREAM, seed]).permutation(rows)
    return np.sort(shuffled[held_out:]), np.sort(shuffled[:held_out])


def reading_order(rows: int, steps: int, global_batch: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the training rows in the order in which the steps see them.

    Step t trains on `order[t * global_batch : (t + 1) * global_batch]`, on any number of workers.
    The order is one permutation of all rows after another; an epoch may end inside a step.

    Args:
        rows: Number of training rows, at least 1.
        steps: Optimizer steps.
        global_batch: Rows in one step.
        seed: Decides the permutations; epoch e's depends on (seed, e) alone.

    Returns:
        int64 (steps × global_batch,), numbers below `rows`.
    """
    wanted = steps * global_batch
    epochs = -(-wanted // rows)
    order = [
        np.random.default_rng([ORDER_STREAM, seed, epoch]).permutation(rows)
        for epoch in range(epochs)
    ]
    return np.concatenate(order)[:wanted].astype(np.int64)
