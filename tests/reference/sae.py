"""The SAE's mathematics written out slowly: loops, dense float64, autograd for the gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raysae.sae.settings import SaeSettings


def top_k_columns(row: Sequence[float], k: int) -> list[int]:
    """The first k columns by (value descending, column ascending), in column order."""
    return sorted(sorted(range(len(row)), key=lambda column: (-row[column], column))[:k])


def encode(
    x_nd: torch.Tensor,
    W_enc_fd: torch.Tensor,
    b_enc_f: torch.Tensor,
    b_dec_d: torch.Tensor,
    *,
    architecture: str,
    k: int,
) -> torch.Tensor:
    """Dense codes; differentiable."""
    if architecture == "relu":
        return (x_nd @ W_enc_fd.T + b_enc_f).relu()
    pre_nf = (x_nd - b_dec_d) @ W_enc_fd.T + b_enc_f
    return keep(pre_nf, [top_k_columns(row, k) for row in pre_nf.tolist()])


def keep(pre_nf: torch.Tensor, columns: list[list[int]]) -> torch.Tensor:
    """ReLU of the named columns of each row, 0 elsewhere."""
    mask_nf = torch.zeros_like(pre_nf)
    for row, chosen in enumerate(columns):
        for column in chosen:
            mask_nf[row, column] = 1
    return (pre_nf * mask_nf).relu()


@dataclass
class Loss:
    """The loss as a scalar and its terms per token."""

    total: torch.Tensor
    squared_error_n: torch.Tensor
    penalty_n: torch.Tensor
    z_nf: torch.Tensor


def loss(
    weights: Sequence[torch.Tensor],
    x_nd: torch.Tensor,
    settings: SaeSettings,
    *,
    l1_coefficient: float,
    dead_f: torch.Tensor | None = None,
    residual_nd: torch.Tensor | None = None,
) -> Loss:
    """The training loss of a whole batch, differentiable in (W_enc_fd, W_dec_fd, b_enc, b_dec).

    `residual_nd` is what AuxK has to reconstruct; finite differences must hold it fixed, because
    the loss treats it as a constant.
    """
    W_enc_fd, W_dec_fd, b_enc_f, b_dec_d = weights
    z_nf = encode(
        x_nd, W_enc_fd, b_enc_f, b_dec_d, architecture=settings.architecture, k=settings.k
    )
    recon_nd = z_nf @ W_dec_fd + b_dec_d
    squared_error_n = ((recon_nd - x_nd) ** 2).sum(1)
    penalty_n = torch.zeros_like(squared_error_n)
    if settings.architecture == "relu":
        penalty_n = l1_coefficient * (z_nf * W_dec_fd.norm(dim=1)).sum(1)
    elif dead_f is not None and dead_f.any() and settings.aux_k:
        if residual_nd is None:
            residual_nd = (x_nd - recon_nd).detach()
        pre_nf = (x_nd - b_dec_d) @ W_enc_fd.T + b_enc_f
        dead = dead_f.nonzero()[:, 0].tolist()
        columns = []
        for row in pre_nf.tolist():
            chosen = top_k_columns([row[f] for f in dead], min(settings.aux_k, len(dead)))
            columns.append([dead[place] for place in chosen])
        aux_nd = keep(pre_nf, columns) @ W_dec_fd
        penalty_n = settings.aux_coefficient * ((aux_nd - residual_nd) ** 2).sum(1)
    return Loss((squared_error_n + penalty_n).mean(), squared_error_n, penalty_n, z_nf)


class Trainer:
    """The training loop with autograd and torch's plain Adam, one rank, inputs already scaled."""

    def __init__(self, settings: SaeSettings, weights: Sequence[torch.Tensor]) -> None:
        self.settings = settings
        self.weights = [tensor.double().clone().requires_grad_() for tensor in weights]
        self.optimizer = torch.optim.Adam(self.weights, lr=1.0)
        self.idle = [0] * settings.d_sae
        self.steps = 0

    def step(self, x_nd: torch.Tensor) -> float:
        settings, step = self.settings, self.steps
        dead_f = torch.tensor([idle >= settings.dead_after_tokens for idle in self.idle])
        warm = step / settings.l1_warmup_steps if settings.l1_warmup_steps else 1.0
        result = loss(
            self.weights,
            x_nd,
            settings,
            l1_coefficient=settings.l1_coefficient * min(1.0, warm),
            dead_f=dead_f,
        )
        gradients = torch.autograd.grad(result.total, self.weights)
        for tensor, gradient in zip(self.weights, gradients, strict=True):
            tensor.grad = gradient.clone()
        W_dec_fd, g_W_dec_fd = self.weights[1], gradients[1].clone()
        unit = settings.architecture == "topk"
        with torch.no_grad():
            if unit:
                for feature in range(settings.d_sae):
                    direction = W_dec_fd[feature] / W_dec_fd[feature].norm()
                    g_W_dec_fd[feature] -= (g_W_dec_fd[feature] @ direction) * direction
                W_dec_fd.grad = g_W_dec_fd
            lr = settings.lr or 2e-4 / math.sqrt(settings.d_sae / 2**14)
            if step < settings.lr_warmup_steps:
                lr *= (step + 1) / settings.lr_warmup_steps
            left = settings.steps - step
            if left < settings.lr_decay_steps:
                lr *= left / settings.lr_decay_steps
            self.optimizer.param_groups[0]["lr"] = lr
            self.optimizer.step()
            if unit:
                for feature in range(settings.d_sae):
                    W_dec_fd[feature] /= W_dec_fd[feature].norm()
        for feature in range(settings.d_sae):
            fired = bool((result.z_nf[:, feature] > 0).any())
            self.idle[feature] = 0 if fired else self.idle[feature] + len(x_nd)
        self.steps += 1
        return result.total.item()


def fvu(x_nd: torch.Tensor, recon_nd: torch.Tensor) -> float:
    """Σ‖x̂ − x‖² / Σ‖x − mean‖²."""
    mean_d = x_nd.mean(0)
    error = sum(float(((recon - x) ** 2).sum()) for x, recon in zip(x_nd, recon_nd, strict=True))
    return error / sum(float(((x - mean_d) ** 2).sum()) for x in x_nd)
