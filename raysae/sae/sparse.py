"""Products of a sparse code with dense rows, without ever writing a dense (n, f) matrix.

Codes with a fixed number of entries per token are given as two (n, k) tensors, features and values.
All sums run in a fixed order, so results do not change from run to run.

Shape letters: n tokens, k entries per token, f features, d `d_in`, m = n·k entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import embedding_bag


@dataclass(frozen=True)
class FeatureOrder:
    """The entries of a code reordered by feature: a sparse matrix in CSC form without its values.

    Attributes:
        entry_m: int64 (m,), the entries' indices, by (feature, token).
        token_m: int64 (m,), the token of each.
        offset_f: int64 (f,), where each feature begins.
    """

    entry_m: torch.Tensor
    token_m: torch.Tensor
    offset_f: torch.Tensor

    def sum_rows(self, value_nk: torch.Tensor, rows_nd: torch.Tensor) -> torch.Tensor:
        """Return (f, d): for each feature Σ over its entries of value · the row of its token.

        It is zᵀ @ rows with z sparse, the gradient of both weight matrices.
        """
        value_m = value_nk.reshape(-1)[self.entry_m]
        return embedding_bag(
            self.token_m, rows_nd, self.offset_f, mode="sum", per_sample_weights=value_m
        )

    def sum_values(self, value_nk: torch.Tensor) -> torch.Tensor:
        """Return (f,): the sum of each feature's values."""
        return self.sum_rows(value_nk, value_nk.new_ones(len(value_nk), 1))[:, 0]


def order_by_feature(feature_nk: torch.Tensor, n_features: int) -> FeatureOrder:
    """Sort the entries of a code by feature, keeping the tokens' order inside each feature.

    Args:
        feature_nk: int64 (n, k).
        n_features: f.
    """
    # int32 halves the time of the sort, which is the only cost here.
    sorted_m, entry_m = feature_nk.reshape(-1).int().sort(stable=True)
    features_f = torch.arange(n_features, device=sorted_m.device, dtype=torch.int32)
    token_m = entry_m.div(feature_nk.shape[1], rounding_mode="floor")
    return FeatureOrder(entry_m, token_m, torch.searchsorted(sorted_m, features_f))


def combine_rows(
    feature_nk: torch.Tensor, value_nk: torch.Tensor, rows_fd: torch.Tensor
) -> torch.Tensor:
    """Return (n, d): for each token Σ_k value · rows[feature], a sparse z @ rows."""
    return embedding_bag(feature_nk, rows_fd, mode="sum", per_sample_weights=value_nk)


def dot_rows(
    feature_nk: torch.Tensor, left_nd: torch.Tensor, rows_fd: torch.Tensor
) -> torch.Tensor:
    """Return (n, k): left[n] · rows[feature], only where the code has an entry."""
    n, k = feature_nk.shape
    feature_m = feature_nk.reshape(-1)
    offset_n = torch.arange(0, n * k, k, device=feature_m.device)
    token_m = torch.arange(n, device=feature_m.device).repeat_interleave(k, output_size=n * k)
    dots_m = torch.ops.aten._embedding_bag_per_sample_weights_backward(  # noqa: SLF001
        left_nd, rows_fd, feature_m, offset_n, token_m, 0
    )
    return dots_m.view(n, k)  # type: ignore[no-any-return]


def count_by_feature(
    feature_nk: torch.Tensor, active_nk: torch.Tensor, n_features: int
) -> torch.Tensor:
    """Return float32 (f,): on how many tokens each feature is active."""
    counts_f = torch.zeros(n_features, device=feature_nk.device)
    return counts_f.scatter_add_(0, feature_nk.reshape(-1), active_nk.reshape(-1).float())
