"""The k largest entries of each row, chosen so that ties have one answer.

Shape letters: n rows, f columns, k entries chosen per row.
"""

from __future__ import annotations

import torch


def unique_top_k(x_nf: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the first k columns of each row in the order (value descending, column ascending).

    `torch.topk` leaves open which of several equal values it takes, and in bfloat16 half of all
    rows have a tie at the k-th place. Here the chosen *set* is a function of the row alone.

    Args:
        x_nf: Floating point (n, f), without NaN; -inf is allowed.
        k: Number of columns to choose; at most f.

    Returns:
        Values (n, k) in the dtype of `x_nf` and columns int64 (n, k). The order inside a row is not
        specified.
    """
    if k == x_nf.shape[1]:
        column_nk = torch.arange(k, device=x_nf.device).expand(len(x_nf), k)
        # A copy: callers reuse the buffer that x_nf is.
        return x_nf.clone(), column_nk
    if x_nf.device.type != "cpu":
        # Looking for tied rows would make the host wait for the device.
        return _exact_top_k(x_nf, k)
    value_nk, column_nk = x_nf.topk(k + 1)
    tied_n = value_nk[:, k - 1] == value_nk[:, k]
    value_nk, column_nk = value_nk[:, :k], column_nk[:, :k]
    if tied_n.any():
        rows = tied_n.nonzero()[:, 0]
        value_nk[rows], column_nk[rows] = _exact_top_k(x_nf[rows], k)
    return value_nk, column_nk


def _exact_top_k(x_nf: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Take all above the k-th value, then the first of those equal to it."""
    threshold_n1 = x_nf.topk(k).values[:, -1:]
    above_nf = x_nf > threshold_n1
    equal_nf = x_nf == threshold_n1
    room_n1 = k - above_nf.sum(1, keepdim=True)
    chosen_nf = above_nf | (equal_nf & (equal_nf.cumsum(1, dtype=torch.int32) <= room_n1))
    n_columns = x_nf.shape[1]
    countdown_f = torch.arange(n_columns, 0, -1, device=x_nf.device, dtype=torch.int32)
    column_nk = (chosen_nf * countdown_f).topk(k).indices
    return x_nf.gather(1, column_nk), column_nk
