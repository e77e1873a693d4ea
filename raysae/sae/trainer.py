"""Training of an SAE, one optimizer step per call, alone or with other ranks.

Gradients are computed by hand (see `architectures`): autograd would keep the dense codes.

Shape letters: n tokens of this rank, d `d_in`, f features.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from raysae.errors import DataError
from raysae.sae.architectures import StepBatch, architecture_named
from raysae.sae.reduction import Ranks
from raysae.sae.sae import Sae
from raysae.sae.schedule import l1_coefficient, learning_rate
from raysae.sae.settings import SaeSettings
from raysae.sae.start import first_weights, input_scale
from raysae.sae.sums import ModalityOfTokens, as_modality_tensor
from raysae.sae.weights import Weights, remove_parallel_part
from raysae.sae.window import TrainingWindow


class SaeTrainer:
    """Trains one SAE with Adam (β .9/.999); N ranks on slices equal one rank on the whole batch.

    Args:
        settings: What to train.
        d_in: Size of a hidden state.
        device: Where to train.
        init_acts_nd: (n, d_in), a sample of hidden states for the input scale and b_dec; some
            thousand tokens from all over the corpus. Only rank 0's counts.
        rank: This process' place in the default process group.
        world_size: Ranks in it; 1 needs no process group.
        dtype: Of the weights and the computation.

    Attributes:
        steps_done: Optimizer steps so far.

    Raises:
        DataError: The sample does not have the shape (n, d_in), or is empty, zero or not finite.
    """

    def __init__(
        self,
        settings: SaeSettings,
        d_in: int,
        device: torch.device | str,
        init_acts_nd: torch.Tensor,
        *,
        rank: int = 0,
        world_size: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings = settings
        self.steps_done = 0
        self._form = architecture_named(settings.architecture)
        self._ranks = Ranks(rank, world_size)
        self._d_in, self._device, self._dtype = d_in, torch.device(device), dtype
        self._check_width(init_acts_nd)
        scale = input_scale(settings, init_acts_nd)
        self._weights = first_weights(settings, init_acts_nd.double() * scale, self._device, dtype)
        self._scale = torch.tensor(scale, dtype=torch.float64, device=self._device)
        self._ranks.copy_from_first([*self._weights.tensors(), self._scale])
        self._idle_tokens_f = torch.zeros(settings.d_sae, dtype=torch.int64, device=self._device)
        self._optimizer = torch.optim.Adam(self._weights.tensors(), lr=settings.peak_lr, fused=True)
        self._window = TrainingWindow(d_in, self._device)

    @property
    def tokens_seen(self) -> int:
        """Tokens trained on so far, over all ranks."""
        return self.steps_done * self.settings.batch_tokens

    @torch.no_grad()
    def step(self, local_acts_nd: torch.Tensor, local_modality_n: ModalityOfTokens) -> None:
        """Take one optimizer step; on an accelerator the host does not wait for it.

        Args:
            local_acts_nd: (n, d_in), this rank's slice of the batch, any floating dtype. The slices
                of all ranks hold `batch_tokens` tokens together and differ by one at most.
            local_modality_n: (n,), a `Modality` per token; only the metrics use it.

        Raises:
            DataError: The slice has a wrong shape or size.
        """
        self._check_width(local_acts_nd)
        self._check_slice(len(local_acts_nd))
        modality_n = as_modality_tensor(local_modality_n, len(local_acts_nd), self._device)
        x_nd = local_acts_nd.to(device=self._device, dtype=self._dtype) * self._scale.to(
            self._dtype
        )
        batch = StepBatch(
            x_nd=x_nd,
            mean_weight=1 / self.settings.batch_tokens,
            l1_coefficient=l1_coefficient(self.settings, self.steps_done),
            dead_f=self._dead_for_aux(),
        )
        result = self._form.loss_gradients(self._weights, batch, self.settings)
        self._ranks.sum_in_place([*result.gradients.tensors(), result.fires_f])
        self._apply(result.gradients)
        self._idle_tokens_f += self.settings.batch_tokens
        self._idle_tokens_f.masked_fill_(result.fires_f > 0, 0)
        self._window.add(self.steps_done, x_nd, result, modality_n)
        self.steps_done += 1

    def metrics(self) -> dict[str, float]:
        """Return means over the steps since the last call; every rank has to call it.

        The host waits for the device here. Keys: `step` (steps done), `tokens` (seen), `lr`,
        `l1_coefficient` (of the last step), `loss`, `squared_error`, `penalty` (L1 or AuxK with
        its coefficient), `dead_share`, and `l0`, `fvu` with their `_text` and `_image` variants
        where such tokens were seen. Errors are in units of the scaled inputs.

        Raises:
            DataError: A loss was not finite (the message names the step), or the ranks' slices do
                not add up to the batch.
        """
        last = max(self.steps_done - 1, 0)
        return {
            "step": self.steps_done,
            "tokens": self.tokens_seen,
            "lr": learning_rate(self.settings, last),
            "l1_coefficient": l1_coefficient(self.settings, last),
            "dead_share": self._dead().double().mean().item(),
            **self._window.report(self._ranks, self.settings.batch_tokens),
        }

    def state_dict(self, *, copies: bool = True) -> dict[str, Any]:
        """Return all that the next steps depend on, on the CPU; the same on every rank.

        It holds tensors, numbers, strings and dictionaries only, so that
        `torch.load(weights_only=True)` reads it.

        Args:
            copies: Make the tensors independent of the trainer. Without it those that are on the
                CPU are the trainer's own, which the next step changes: to be saved at once.

        Raises:
            DataError: A loss or a weight is not finite: such a state must not be kept.
        """
        self._check_finite()
        return {
            "settings": asdict(self.settings),
            "steps_done": self.steps_done,
            "scale": self._scale.item(),
            "weights": _on_cpu(self._weights.by_name(), copies=copies),
            "idle_tokens_f": self._idle_tokens_f.to("cpu", copy=copies),
            "optimizer": _on_cpu(self._optimizer.state_dict(), copies=copies),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict()`: the next steps are the same to the bit.

        Raises:
            DataError: The state is of a training with other settings.
        """
        if state["settings"] != asdict(self.settings):
            different = [
                name
                for name, value in asdict(self.settings).items()
                if state["settings"].get(name) != value
            ]
            raise DataError(
                f"the checkpoint was trained with other values of sae.{', sae.'.join(different)}; "
                "resume with its settings or start anew."
            )
        self.steps_done = state["steps_done"]
        self._scale.fill_(state["scale"])
        for name, tensor in self._weights.by_name().items():
            tensor.copy_(state["weights"][name])
        self._idle_tokens_f.copy_(state["idle_tokens_f"])
        # Adam keeps the tensors that it is given where it can, and the caller may use them again.
        self._optimizer.load_state_dict(_on_cpu(state["optimizer"], copies=True))
        self._window = TrainingWindow(self._d_in, self._device)

    @torch.no_grad()
    def finished_sae(self) -> Sae:
        """Return the SAE for raw hidden states: the input scale s is folded in.

        W_enc·s, W_dec/s, b_dec/s give the same codes for x as the trained weights for s·x.

        Raises:
            DataError: A loss or a weight is not finite.
        """
        self._check_finite()
        weights, scale = self._weights, self._scale.to(self._dtype)
        return Sae(
            W_enc=(weights.W_enc_fd * scale).T,
            b_enc=weights.b_enc_f.clone(),
            W_dec=weights.W_dec_fd / scale,
            b_dec=weights.b_dec_d / scale,
            architecture=self.settings.architecture,
            k=self.settings.k if self.settings.architecture == "topk" else 0,
        )

    def _dead(self) -> torch.Tensor:
        return self._idle_tokens_f >= self.settings.dead_after_tokens

    def _dead_for_aux(self) -> torch.Tensor | None:
        # Before that many tokens no feature can be dead, which the host knows without asking.
        if self.settings.aux_k == 0 or self.tokens_seen < self.settings.dead_after_tokens:
            return None
        return self._dead()

    def _apply(self, gradients: Weights) -> None:
        if self._form.unit_norm_decoder:
            remove_parallel_part(gradients.W_dec_fd, self._weights.W_dec_fd)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.steps_done)
        for tensor, gradient in zip(self._weights.tensors(), gradients.tensors(), strict=True):
            tensor.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._form.unit_norm_decoder:
            W_dec_fd = self._weights.W_dec_fd
            W_dec_fd /= torch.linalg.vector_norm(W_dec_fd, dim=1, keepdim=True)

    def _check_width(self, acts_nd: torch.Tensor) -> None:
        if acts_nd.ndim != 2 or acts_nd.shape[1] != self._d_in:
            raise DataError(
                f"SAE training: hidden states of shape {tuple(acts_nd.shape)} were given to an SAE "
                f"with d_in = {self._d_in}; train on the cache that it was planned for."
            )

    def _check_slice(self, n_tokens: int) -> None:
        share, rest = divmod(self.settings.batch_tokens, self._ranks.world_size)
        if n_tokens not in {share, share + (rest > 0)} or n_tokens == 0:
            raise DataError(
                f"SAE training: rank {self._ranks.rank} got {n_tokens} tokens, but "
                f"sae.batch_tokens = {self.settings.batch_tokens} over {self._ranks.world_size} "
                f"ranks makes {share}; give each rank its slice of the whole batch."
            )

    def _check_finite(self) -> None:
        self._window.check_finite()
        if not all(tensor.sum().isfinite() for tensor in self._weights.tensors()):
            raise DataError(
                f"SAE training: the weights are not finite after step {self.steps_done - 1}; go "
                "back to a checkpoint before it with a lower sae.lr."
            )


def _on_cpu(value: Any, *, copies: bool) -> Any:
    """Bring nested dictionaries and lists of tensors to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=copies)
    if isinstance(value, dict):
        return {key: _on_cpu(item, copies=copies) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item, copies=copies) for item in value)
    return value
