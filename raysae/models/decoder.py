"""A decoder-only text model cut after a block: prompts in, hidden states out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raysae.errors import RejectedSampleError
from raysae.models.base import (
    HiddenStateModel,
    PatchBox,
    PreparedImage,
    PreparedSample,
    special_modality,
    token_batch,
)
from raysae.models.grids import Grid
from raysae.models.processors import Tokenizer
from raysae.models.prompts import Conversation, image_order, render_prompt, without_images
from raysae.models.settings import ModelSettings
from raysae.models.waiting import KeepsNothing, send
from raysae.sample import Modality, Sample, TokenBatch


class Decoder(HiddenStateModel):
    """A text model, or the part of a vision-language model that is one.

    Rows are padded on the right whatever the tokenizer's side, and no attention mask is passed:
    under causal attention nothing before the padding sees it. That keeps the fast kernels and is
    exact. Nothing in a forward pass waits for the device.

    Args:
        settings: What is read, and how it is shown.
        model: The headless transformers model, its final norm replaced by the identity.
        text_model: The part of it that holds the blocks; the model itself, if it is nothing else.
        tokenizer: The model's.
        apply_chat_template: (conversation, add_generation_prompt) → text.
    """

    def __init__(
        self,
        settings: ModelSettings,
        model: Any,
        text_model: Any,
        tokenizer: Tokenizer,
        apply_chat_template: Callable[[Conversation, bool], str],
    ) -> None:
        self.layer = settings.layer
        self.d_in = int(text_model.config.hidden_size)
        self.device = model.device
        self.dtype = model.dtype
        self._settings = settings
        self._text_model = text_model
        self._text = tokenizer
        self._tokenizer = tokenizer.raw
        self._apply_chat_template = apply_chat_template
        self._longest = longest_prompt(text_model.config)

    def outline(self, sample: Sample) -> PreparedSample:
        """Render, tokenise and lay out the images; see `HiddenStateModel.outline`.

        Raises:
            RejectedSampleError: Reasons of `image_order`, `render_prompt` and, where images are
                shown, `upright_size`; `too-long` (more tokens than the model has positions);
                `no-vision` (images for a text-only model).
        """
        if self._settings.images == "drop":
            sample = without_images(sample)
        order = image_order(sample)
        if order and self._text.image_token is None:
            detail = "it has images, but the model is text-only; model.images=drop leaves them out"
            raise RejectedSampleError("no-vision", detail)
        prompt = render_prompt(
            sample,
            self._settings,
            self._text.image_token,
            self._text.control_tokens,
            self._apply_chat_template,
        )
        ids = self._text.encode(prompt, n_images=len(order))
        laid_out = self._lay_out([(index, sample.images[index]) for index in order])
        token_id_n, modality_n = self._expand(ids, [grid for _, grid in laid_out])
        if len(token_id_n) > self._longest:
            detail = f"{len(token_id_n)} tokens, but the model has {self._longest} positions"
            raise RejectedSampleError("too-long", detail)
        images = tuple(image for image, _ in laid_out)
        return PreparedSample(sample.sample_id, token_id_n, modality_n, images)

    def _lay_out(self, images: Sequence[tuple[int, bytes]]) -> list[tuple[PreparedImage, Grid]]:
        """Lay out a prompt's images, (index, encoded) in order, from their headers."""
        assert not images, "text-only"
        return []

    def _expand(
        self, ids: Sequence[int], grids: Sequence[Grid]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Repeat each image placeholder once per token of its image, and tell the modalities."""
        repeats = np.ones(len(ids), np.int64)
        id_n = np.asarray(ids, np.int32)
        repeats[id_n == self._text.image_id] = [grid.n_tokens for grid in grids]
        token_id_n = np.repeat(id_n, repeats)
        modality_n = special_modality(token_id_n, self._text.special_ids, self._text.image_id)
        if grids and self._settings.newline == "special":
            newline_n = np.concatenate([grid.newlines() for grid in grids])
            image_positions = np.flatnonzero(token_id_n == self._text.image_id)
            modality_n[image_positions[newline_n]] = Modality.SPECIAL
        return token_id_n, modality_n

    def fill(self, sample: Sample, outlined: PreparedSample) -> PreparedSample:
        """Return the outlined sample: text needs no more; see `HiddenStateModel.fill`."""
        del sample
        return outlined

    @torch.no_grad()
    def hidden_states_at(
        self, prepared: Sequence[PreparedSample], layers: Sequence[int]
    ) -> dict[int, TokenBatch]:
        """Run one padded forward pass; see `HiddenStateModel.hidden_states_at`."""
        lengths = [sample.n_tokens for sample in prepared]
        id_bt = np.zeros((len(prepared), max(lengths)), np.int64)
        for row, sample in enumerate(prepared):
            id_bt[row, : lengths[row]] = sample.token_id_n
        with self._noted(set(layers) - {self.layer}) as noted:
            last_btd = self._text_model(
                **self._inputs(id_bt, prepared), use_cache=False, past_key_values=KeepsNothing()
            ).last_hidden_state
        found: dict[int, TokenBatch] = {}
        for layer in layers:
            out_btd = last_btd if layer == self.layer else noted.pop(layer)
            # The lengths are known on the host, so that cutting the padding off does not wait.
            acts_nd = torch.cat([out_btd[row, :length] for row, length in enumerate(lengths)])
            found[layer] = token_batch(prepared, acts_nd)
        return found

    @contextmanager
    def _noted(self, layers: Collection[int]) -> Iterator[dict[int, torch.Tensor]]:
        """Note the outputs of blocks, by number, while the context lasts."""
        noted: dict[int, torch.Tensor] = {}

        def note(layer: int, output: Any) -> None:
            # Some versions of transformers return a tuple.
            noted[layer] = output if isinstance(output, torch.Tensor) else output[0]

        hooks = [
            self._text_model.layers[layer].register_forward_hook(
                lambda _block, _given, output, layer=layer: note(layer, output)
            )
            for layer in layers
        ]
        try:
            yield noted
        finally:
            for hook in hooks:
                hook.remove()

    def _inputs(
        self, id_bt: npt.NDArray[np.int64], prepared: Sequence[PreparedSample]
    ) -> dict[str, torch.Tensor]:
        """Return what the text model is given: ids, since some models scale their embeddings."""
        del prepared
        return {"input_ids": send(torch.from_numpy(id_bt), self.device)}

    def image_boxes(self, sample: Sample, prepared: PreparedSample) -> list[PatchBox]:
        """Return no box: text shows no image; see `HiddenStateModel.image_boxes`."""
        if sample.sample_id != prepared.sample_id:
            raise ValueError(f"prepared is of {prepared.sample_id!r}, not {sample.sample_id!r}")
        return []


def longest_prompt(config: Any) -> int:
    """Return the most tokens that a text configuration allows for whatever else is in the batch.

    `longrope` turns to other frequencies, for a whole batch, once its longest row exceeds the
    length of the first training; longer prompts would change their neighbours' hidden states.
    """
    longest = int(config.max_position_embeddings)
    rope = getattr(config, "rope_parameters", None) or {}
    # One set of parameters, or one for each type of layer.
    for parameters in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if parameters.get("rope_type") == "longrope":
            longest = min(longest, int(parameters["original_max_position_embeddings"]))
    return longest
