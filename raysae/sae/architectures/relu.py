"""ReLU with norm-weighted L1, the SAE of SAE-V (Lou et al., ICML 2025, Eq. 1–3).

Shape letters: n tokens, d `d_in`, f features, b features of one block.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from raysae.sae.architectures.base import ActivePairs, StepBatch, StepResult
from raysae.sae.settings import SaeSettings
from raysae.sae.weights import Weights, row_chunks


class ReluL1:
    """z = ReLU(W_enc h + b_enc); loss = mean over tokens of ‖ĥ − h‖² + λ Σ_k z_k‖W_dec,k‖.

    As in the authors' code the squared error is summed over d, the decoder keeps no fixed norm,
    and b_dec is not subtracted from the input. The start norm 0.1 is that of SAELens, on which
    that code builds.
    """

    saelens_name = "standard"
    subtracts_b_dec = False
    unit_norm_decoder = False
    start_norm = 0.1

    def activate(self, pre_nf: torch.Tensor, k: int) -> torch.Tensor:  # noqa: ARG002
        """Return max(pre, 0)."""
        return pre_nf.relu()

    def collect(
        self,
        blocks: Iterable[tuple[int, torch.Tensor]],
        k: int,  # noqa: ARG002
        threshold: float,
    ) -> ActivePairs:
        """Return the pairs above the threshold, block after block."""
        tokens, features, values = [], [], []
        for first, pre_nb in blocks:
            token_m, column_m = (pre_nb > threshold).nonzero(as_tuple=True)
            tokens.append(token_m)
            features.append(column_m + first)
            values.append(pre_nb[token_m, column_m])
        return torch.cat(tokens), torch.cat(features), torch.cat(values)

    def loss_gradients(
        self, weights: Weights, batch: StepBatch, settings: SaeSettings
    ) -> StepResult:
        """Return loss and gradients; rows in chunks, so that no (n, f) matrix exists whole."""
        gradients = Weights(*(torch.zeros_like(tensor) for tensor in weights.tensors()))
        norm_f = torch.linalg.vector_norm(weights.W_dec_fd, dim=1)
        z_sum_f = torch.zeros_like(norm_f)
        fires_f = torch.zeros_like(norm_f, dtype=torch.float32)
        parts = []
        for chunk in row_chunks(len(batch.x_nd), settings.d_sae, batch.x_nd.device):
            x_nd = batch.x_nd[chunk]
            z_nf = torch.addmm(weights.b_enc_f, x_nd, weights.W_enc_fd.T).relu_()
            error_nd = torch.addmm(weights.b_dec_d, z_nf, weights.W_dec_fd).sub_(x_nd)
            active_nf = z_nf.sign()
            parts.append(
                (error_nd.square().sum(1), batch.l1_coefficient * (z_nf @ norm_f), active_nf.sum(1))
            )
            z_sum_f += z_nf.sum(0)
            fires_f += active_nf.sum(0)
            g_recon_nd = error_nd.mul_(2 * batch.mean_weight)
            gradients.W_dec_fd.addmm_(z_nf.T, g_recon_nd)
            gradients.b_dec_d += g_recon_nd.sum(0)
            g_l1_f = norm_f * (batch.l1_coefficient * batch.mean_weight)
            g_z_nf = torch.addmm(g_l1_f, g_recon_nd, weights.W_dec_fd.T, out=z_nf).mul_(active_nf)
            gradients.W_enc_fd.addmm_(g_z_nf.T, x_nd)
            gradients.b_enc_f += g_z_nf.sum(0)
        # d‖w‖/dw = w/‖w‖; a row of norm 0 has no direction and gets no gradient from the L1 term.
        slope_f = torch.where(norm_f > 0, z_sum_f / norm_f, 0.0)
        slope_f *= batch.l1_coefficient * batch.mean_weight
        gradients.W_dec_fd.addcmul_(weights.W_dec_fd, slope_f[:, None])
        squared_error_n, penalty_n, l0_n = (torch.cat(part) for part in zip(*parts, strict=True))
        return StepResult(gradients, squared_error_n, penalty_n, l0_n, fires_f)
