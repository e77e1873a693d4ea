"""A finished sparse autoencoder: encode, decode, and the sparse forms of both.

Shape letters: n tokens, d `d_in`, f `d_sae` features, b features of one block, m active pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import embedding_bag

from raysae.errors import DataError
from raysae.sae.architectures import Architecture, architecture_named
from raysae.sae.codes import Codes


@dataclass(frozen=True)
class Sae:
    """The weights of an SAE on raw hidden states (any input scale is folded in).

    Attributes:
        W_enc: (d_in, d_sae).
        b_enc: (d_sae,).
        W_dec: (d_sae, d_in).
        b_dec: (d_in,).
        architecture: `relu` or `topk`.
        k: Active features per token; 0 where the architecture has none.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    architecture: str
    k: int = 0

    def __post_init__(self) -> None:
        """Check the shapes.

        Raises:
            DataError: The four tensors do not belong together.
            SettingsError: The architecture is unknown.
        """
        architecture_named(self.architecture)
        d_in, d_sae = self.W_enc.shape
        shapes = [tuple(tensor.shape) for tensor in (self.b_enc, self.W_dec, self.b_dec)]
        if shapes != [(d_sae,), (d_sae, d_in), (d_in,)]:
            raise DataError(
                f"the SAE's b_enc, W_dec, b_dec have shapes {shapes}, which do not fit "
                f"W_enc {(d_in, d_sae)}; its file is damaged or of another SAE."
            )
        if self.architecture == "topk" and not 1 <= self.k <= d_sae:
            raise DataError(f"the SAE has k = {self.k}, not between 1 and d_sae = {d_sae}.")

    @property
    def d_in(self) -> int:
        """Size of a hidden state."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.W_enc.shape[1]

    @property
    def subtracts_b_dec(self) -> bool:
        """Whether b_dec is subtracted from the input before encoding."""
        return self._form.subtracts_b_dec

    @property
    def _form(self) -> Architecture:
        return architecture_named(self.architecture)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Sae:
        """Return the same SAE on another device or in another dtype."""
        return replace(
            self,
            W_enc=self.W_enc.to(device=device, dtype=dtype),
            b_enc=self.b_enc.to(device=device, dtype=dtype),
            W_dec=self.W_dec.to(device=device, dtype=dtype),
            b_dec=self.b_dec.to(device=device, dtype=dtype),
        )

    @torch.no_grad()
    def encode(self, acts_nd: torch.Tensor) -> torch.Tensor:
        """Return the codes z as a dense matrix; for small batches.

        Args:
            acts_nd: (n, d_in), any floating dtype; computed in that of the weights.

        Returns:
            (n, d_sae) in the weights' dtype.
        """
        pre_nf = torch.addmm(self.b_enc, self._encoder_input(acts_nd), self.W_enc)
        return self._form.activate(pre_nf, self.k)

    @torch.no_grad()
    def encode_sparse(
        self,
        acts_nd: torch.Tensor,
        threshold: float = 0.0,
        feature_block: int = 8192,
        token_block: int = 1024,
    ) -> Codes:
        """Return the active features only; never holds more than one block of pre-activations.

        Apart from the result, memory is bounded by token_block × feature_block pre-activations and
        token_block × d_in inputs. The blocks change values by rounding at most.

        Args:
            acts_nd: (n, d_in), any floating dtype; computed in that of the weights.
            threshold: Only values above it are returned; ≥ 0.
            feature_block: Features per block.
            token_block: Tokens per block.
        """
        tokens, features, values = [], [], []
        for first in range(0, max(len(acts_nd), 1), token_block):
            x_nd = self._encoder_input(acts_nd[first : first + token_block])
            token_m, feature_m, value_m = self._form.collect(
                self._blocks(x_nd, feature_block), self.k, threshold
            )
            order_m = torch.argsort(token_m * self.d_sae + feature_m)
            tokens.append((token_m[order_m] + first).int())
            features.append(feature_m[order_m].int())
            values.append(value_m[order_m].float())
        return Codes(torch.cat(tokens), torch.cat(features), torch.cat(values))

    @torch.no_grad()
    def decode(self, z_nf: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction (n, d_in) of dense codes (n, d_sae)."""
        return torch.addmm(self.b_dec, z_nf.to(self.W_dec.dtype), self.W_dec)

    @torch.no_grad()
    def decode_sparse(self, codes: Codes, n_tokens: int) -> torch.Tensor:
        """Return the reconstruction (n_tokens, d_in) of sparse codes, in the weights' dtype."""
        summed_nd = embedding_bag(
            codes.feature_m.long(),
            self.W_dec,
            codes.offsets(n_tokens),
            mode="sum",
            per_sample_weights=codes.value_m.to(self.W_dec.dtype),
        )
        return summed_nd.add_(self.b_dec)

    def _encoder_input(self, acts_nd: torch.Tensor) -> torch.Tensor:
        if acts_nd.ndim != 2 or acts_nd.shape[1] != self.d_in:
            raise DataError(
                f"the hidden states have shape {tuple(acts_nd.shape)}, but the SAE was trained on "
                f"(tokens, {self.d_in}); use the model and layer that it was trained on."
            )
        x_nd = acts_nd.to(device=self.W_enc.device, dtype=self.W_enc.dtype)
        return x_nd - self.b_dec if self.subtracts_b_dec else x_nd

    def _blocks(self, x_nd: torch.Tensor, feature_block: int) -> Iterator[tuple[int, torch.Tensor]]:
        for first in range(0, self.d_sae, feature_block):
            block = slice(first, first + feature_block)
            yield first, torch.addmm(self.b_enc[block], x_nd, self.W_enc[:, block])
