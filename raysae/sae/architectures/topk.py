"""TopK with AuxK (Gao et al., "Scaling and evaluating sparse autoencoders", 2024).

Shape letters: n tokens, d `d_in`, f features, b features of one block, k active per token.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from raysae.sae.architectures.base import ActivePairs, StepBatch, StepResult
from raysae.sae.selection import unique_top_k
from raysae.sae.settings import SaeSettings
from raysae.sae.sparse import combine_rows, count_by_feature, dot_rows, order_by_feature
from raysae.sae.weights import Weights, row_chunks

Selected = tuple[torch.Tensor, torch.Tensor]
"""Features int64 (n, k) and their activations (n, k), ReLU applied."""


class TopK:
    """z = ReLU of the k largest of W_enc(h − b_dec) + b_enc; loss = mean of ‖ĥ − h‖² + α·AuxK.

    AuxK = mean over tokens of ‖r − r̂‖²: the residual r = h − ĥ (held constant) reconstructed by
    the `aux_k` largest *dead* features, without b_dec; its gradient reaches decoder and encoder.
    """

    saelens_name = "topk"
    subtracts_b_dec = True
    unit_norm_decoder = True
    start_norm = 1.0

    def activate(self, pre_nf: torch.Tensor, k: int) -> torch.Tensor:
        """Keep the k largest by (value, then lower feature index), ReLU applied, zero the rest."""
        value_nk, feature_nk = unique_top_k(pre_nf, k)
        return torch.zeros_like(pre_nf).scatter_(1, feature_nk, value_nk.relu())

    def collect(
        self, blocks: Iterable[tuple[int, torch.Tensor]], k: int, threshold: float
    ) -> ActivePairs:
        """Keep a running top k; candidates stay in feature order, which decides ties."""
        value_nk: torch.Tensor | None = None
        feature_nk = torch.empty(0)
        for first, pre_nb in blocks:
            value, column = unique_top_k(pre_nb, min(k, pre_nb.shape[1]))
            column, order = column.sort(dim=1)
            value, feature = value.gather(1, order), column + first
            if value_nk is not None:
                value = torch.cat([value_nk, value], dim=1)
                feature = torch.cat([feature_nk, feature], dim=1)
                value, column = unique_top_k(value, min(k, value.shape[1]))
                column, order = column.sort(dim=1)
                value, feature = value.gather(1, order), feature.gather(1, column)
            value_nk, feature_nk = value, feature
        assert value_nk is not None, "an SAE has at least one feature block"
        token_m, place_m = (value_nk > threshold).nonzero(as_tuple=True)
        return token_m, feature_nk[token_m, place_m], value_nk[token_m, place_m]

    def loss_gradients(
        self, weights: Weights, batch: StepBatch, settings: SaeSettings
    ) -> StepResult:
        """Return loss and gradients, everything after the encoder's matmul sparse."""
        centred_nd = batch.x_nd - weights.b_dec_d
        main, aux = _select(weights, centred_nd, batch.dead_f, settings)
        error_nd = combine_rows(*main, weights.W_dec_fd).add_(weights.b_dec_d).sub_(batch.x_nd)
        squared_error_n = error_nd.square().sum(1)
        penalty_n = torch.zeros_like(squared_error_n)
        aux_part = None
        if aux is not None and batch.dead_f is not None:
            # r̂ − r = r̂ + (ĥ − h), because r = h − ĥ.
            aux_error_nd = combine_rows(*aux, weights.W_dec_fd).add_(error_nd)
            penalty_n = aux_error_nd.square().sum(1) * settings.aux_coefficient
            # Without a dead feature there is no AuxK term (its gradient is zero by itself).
            penalty_n *= batch.dead_f.any()
            aux_error_nd.mul_(2 * settings.aux_coefficient * batch.mean_weight)
            aux_part = _gradients_of_code(weights, centred_nd, aux, aux_error_nd)
        g_recon_nd = error_nd.mul_(2 * batch.mean_weight)
        gradients = _gradients_of_code(weights, centred_nd, main, g_recon_nd)
        if aux_part is not None:
            gradients.add_(aux_part)
        gradients.b_dec_d += g_recon_nd.sum(0)
        feature_nk, z_nk = main
        active_nk = z_nk > 0
        fires_f = count_by_feature(feature_nk, active_nk, settings.d_sae)
        return StepResult(gradients, squared_error_n, penalty_n, active_nk.sum(1), fires_f)


def _select(
    weights: Weights, centred_nd: torch.Tensor, dead_f: torch.Tensor | None, settings: SaeSettings
) -> tuple[Selected, Selected | None]:
    """Encode in row chunks through one buffer; return the top k and the top `aux_k` of the dead."""
    chunks = row_chunks(len(centred_nd), settings.d_sae, centred_nd.device)
    buffer_nf = centred_nd.new_empty(chunks[0].stop, settings.d_sae)
    candidates = AuxCandidates.of(dead_f, settings.aux_k)
    main, aux = [], []
    for chunk in chunks:
        x_nd = centred_nd[chunk]
        pre_nf = buffer_nf[: len(x_nd)]
        torch.addmm(weights.b_enc_f, x_nd, weights.W_enc_fd.T, out=pre_nf)
        main.append(unique_top_k(pre_nf, settings.k))
        if candidates is not None:
            aux.append(candidates.top(pre_nf))
    return _joined(main), _joined(aux) if aux else None


def _joined(chunks: list[tuple[torch.Tensor, torch.Tensor]]) -> Selected:
    values, features = zip(*chunks, strict=True)
    return torch.cat(features), torch.cat(values).relu_()


class AuxCandidates:
    """Selects among the dead features.

    On a CPU the dead columns are gathered, which is cheap when they are few. On an accelerator
    their number is not known to the host, and the others are masked instead.
    """

    def __init__(self, dead_f: torch.Tensor, aux_k: int, *, gather: bool) -> None:
        self._dead_f = dead_f
        self._columns = dead_f.nonzero()[:, 0] if gather else None
        self._aux_k = min(aux_k, len(dead_f if self._columns is None else self._columns))

    @classmethod
    def of(cls, dead_f: torch.Tensor | None, aux_k: int) -> AuxCandidates | None:
        """Return the candidates, or None where AuxK has nothing to do."""
        if dead_f is None or aux_k == 0:
            return None
        candidates = cls(dead_f, aux_k, gather=dead_f.device.type == "cpu")
        return candidates if candidates._aux_k > 0 else None

    def top(self, pre_nf: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the largest dead pre-activations and their features, both (n, aux_k)."""
        if self._columns is None:
            return unique_top_k(pre_nf.masked_fill(~self._dead_f, -torch.inf), self._aux_k)
        value_nk, column_nk = unique_top_k(pre_nf.index_select(1, self._columns), self._aux_k)
        return value_nk, self._columns[column_nk]


def _gradients_of_code(
    weights: Weights, centred_nd: torch.Tensor, code: Selected, g_out_nd: torch.Tensor
) -> Weights:
    """Backpropagate g_out, the gradient at the decoder's output, through one sparse code."""
    feature_nk, z_nk = code
    order = order_by_feature(feature_nk, len(weights.b_enc_f))
    g_pre_nk = dot_rows(feature_nk, g_out_nd, weights.W_dec_fd).mul_(z_nk > 0)
    g_b_enc_f = order.sum_values(g_pre_nk)
    return Weights(
        W_enc_fd=order.sum_rows(g_pre_nk, centred_nd),
        W_dec_fd=order.sum_rows(z_nk, g_out_nd),
        b_enc_f=g_b_enc_f,
        # b_dec is subtracted from the encoder's input.
        b_dec_d=-(g_b_enc_f @ weights.W_enc_fd),
    )
