"""Sparse codes: the active features of many tokens, as one sorted list.

Shape letters: n tokens, f features, m active (token, feature) pairs, d `d_in`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Codes:
    """The active features of a batch of tokens, sorted by (token, feature), each pair once.

    Attributes:
        token_m: int32 (m,), index of the token in the batch that was encoded.
        feature_m: int32 (m,), index of the feature.
        value_m: float32 (m,), its activation.
    """

    token_m: torch.Tensor
    feature_m: torch.Tensor
    value_m: torch.Tensor

    def __len__(self) -> int:
        return len(self.token_m)

    def to(self, device: torch.device | str) -> Codes:
        """Return the same codes on another device."""
        return Codes(self.token_m.to(device), self.feature_m.to(device), self.value_m.to(device))

    def dense(self, n_tokens: int, d_sae: int) -> torch.Tensor:
        """Return the codes as a float32 matrix (n_tokens, d_sae); for small batches only."""
        z_nf = torch.zeros(n_tokens, d_sae, device=self.value_m.device)
        z_nf[self.token_m.long(), self.feature_m.long()] = self.value_m
        return z_nf

    def offsets(self, n_tokens: int) -> torch.Tensor:
        """Return int64 (n_tokens,): where each token's codes begin (codes are sorted by token)."""
        tokens_n = torch.arange(n_tokens, device=self.token_m.device, dtype=self.token_m.dtype)
        return torch.searchsorted(self.token_m, tokens_n)
