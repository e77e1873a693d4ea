"""How well an SAE does, by modality: reconstruction, sparsity, and which features are alive.

Shape letters: n tokens, d `d_in`, f features, m active pairs, g modalities.
"""

from __future__ import annotations

import torch

from raysae.sae.codes import Codes
from raysae.sae.sae import Sae
from raysae.sae.sums import GROUPS, ModalityOfTokens, ModalitySums, as_modality_tensor
from raysae.sample import Modality


class SaeHealth:
    """Mergeable statistics of an SAE over any number of tokens.

    Args:
        d_in: Size of a hidden state.
        d_sae: Number of features.
        dense_rate: A feature that fires on more than this share of the tokens counts as dense.
    """

    def __init__(self, d_in: int, d_sae: int, dense_rate: float = 0.1) -> None:
        self._sums = ModalitySums(d_in)
        self._fires_gf = torch.zeros(len(Modality), d_sae, dtype=torch.int64)
        self._dense_rate = dense_rate

    def update(
        self,
        acts_nd: torch.Tensor,
        codes: Codes,
        recon_nd: torch.Tensor,
        modality_n: ModalityOfTokens,
    ) -> None:
        """Add a batch.

        Args:
            acts_nd: (n, d_in), hidden states.
            codes: Their codes.
            recon_nd: (n, d_in), their reconstruction.
            modality_n: (n,), a `Modality` per token.
        """
        n, d_sae = len(acts_nd), self._fires_gf.shape[1]
        codes, cpu = codes.to("cpu"), torch.device("cpu")
        modality = as_modality_tensor(modality_n, n, cpu)
        error_n = (recon_nd.float() - acts_nd.float()).square().sum(1)
        l0_n = torch.bincount(codes.token_m.long(), minlength=n)
        self._sums.add(acts_nd.to(cpu), error_n.to(cpu), l0_n, modality)
        pair_m = modality[codes.token_m.long()] * d_sae + codes.feature_m.long()
        self._fires_gf += torch.bincount(pair_m, minlength=self._fires_gf.numel()).view(-1, d_sae)

    def measure(self, sae: Sae, acts_nd: torch.Tensor, modality_n: ModalityOfTokens) -> None:
        """Encode and decode a batch with `sae`, then add it."""
        codes = sae.encode_sparse(acts_nd)
        recon_nd = sae.decode_sparse(codes, len(acts_nd)).to(acts_nd.device)
        self.update(acts_nd, codes, recon_nd, modality_n)

    def merge(self, other: SaeHealth) -> None:
        """Add what another instance has counted."""
        self.load_state_dict(
            {
                name: mine + theirs
                for (name, mine), theirs in zip(
                    self.state_dict().items(), other.state_dict().values(), strict=True
                )
            }
        )

    def firing_rate(self, group: str = "all") -> torch.Tensor:
        """Return float64 (d_sae,): the share of the tokens of a group that each feature fires on.

        Args:
            group: `all`, `text` or `image`.
        """
        tokens = self._sums.group(group)["tokens"]
        return self._fires_gf[list(GROUPS[group])].sum(0).double() / max(tokens, 1)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return, for `all`, `text` and `image`, one dictionary of numbers.

        `tokens`; `squared_error` per token; `l0`; `fvu`; `alive_share` of features that fire at
        least once, `dead_share` of those that never do, `dense_share` of those that fire on more
        than `dense_rate` of the tokens. Means are NaN where a group has no tokens.
        """
        summary = {}
        for name in GROUPS:
            rate_f = self.firing_rate(name)
            alive = (rate_f > 0).double().mean().item()
            summary[name] = {
                **self._sums.group(name),
                "alive_share": alive,
                "dead_share": 1 - alive,
                "dense_share": (rate_f > self._dense_rate).double().mean().item(),
            }
        return summary

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the sums as CPU tensors, e.g. to send them to the process that merges."""
        scalars, sum_gd = self._sums.tensors()
        return {"scalars": scalars, "sum_gd": sum_gd, "fires_gf": self._fires_gf}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Replace the sums by those of `state_dict()`."""
        self._sums.scalars = state["scalars"].clone()
        self._sums.sum_gd = state["sum_gd"].clone()
        self._fires_gf = state["fires_gf"].clone()
