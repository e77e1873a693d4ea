"""LLaVA-NeXT's forward pass: prompts with tiles of any number in, hidden states out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from raysae.errors import DataError, RejectedSampleError, SettingsError
from raysae.models.anyres import AnyresGrid, anyres_grid
from raysae.models.base import (
    HiddenStateModel,
    PatchBox,
    PreparedImage,
    PreparedSample,
    special_modality,
    token_batch,
)
from raysae.models.images import decode_image
from raysae.models.processors import Tokenizer
from raysae.models.prompts import image_order, render_prompt
from raysae.models.settings import ModelSettings
from raysae.sample import Modality, Sample, TokenBatch


class LlavaNext(HiddenStateModel):
    """LLaVA-NeXT cut after a block.

    Rows are padded on the right whatever the tokenizer's side, and no attention mask is passed:
    under causal attention nothing before the padding sees it. That keeps the fast kernels and is
    exact.
    """

    def __init__(self, settings: ModelSettings, model: Any, processor: Any) -> None:
        config = model.config
        self.layer = settings.layer
        self.d_in = int(config.text_config.hidden_size)
        self.device = model.device
        self.dtype = model.dtype
        self._settings = settings
        self._model = model
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._text = Tokenizer(processor.tokenizer, str(processor.image_token))
        self._tile = int(config.vision_config.image_size)
        self._patch = int(config.vision_config.patch_size)
        self._pinpoints = [tuple(grid) for grid in config.image_grid_pinpoints]
        self._longest = int(config.text_config.max_position_embeddings)
        self._check_processor(config)

    def _check_processor(self, config: Any) -> None:
        """Refuse a processor that cuts images otherwise than the model packs them.

        Raises:
            SettingsError: Tile size, grids or the image token differ.
        """
        processor = self._processor.image_processor
        pairs = {
            "image token": (self._text.image_id, config.image_token_id),
            "crop size": (processor.crop_size["height"], self._tile),
            "image grids": ([tuple(g) for g in processor.image_grid_pinpoints], self._pinpoints),
        }
        for what, (processors, models) in pairs.items():
            if processors != models:
                raise SettingsError(
                    f"model.path: the {what} is {processors} to the processor but {models} to the "
                    "model; correct the model's preprocessor_config.json or tokenizer."
                )

    def prepare(self, sample: Sample) -> PreparedSample:
        """Render, tokenise, decode and cut into tiles; see `HiddenStateModel.prepare`.

        Raises:
            RejectedSampleError: Reasons of `render_prompt` and `decode_image`, `too-long` (more
                tokens than the model has positions), `unprocessable-image`.
        """
        order = image_order(sample)
        prompt = render_prompt(
            sample,
            self._settings,
            self._text.image_token,
            self._text.control_tokens,
            self._apply_chat_template,
        )
        ids = self._text.encode(prompt, n_images=len(order))
        pictures = [self._decode(sample.images[index]) for index in order]
        grids = [self._grid(picture.height, picture.width) for picture in pictures]
        token_id_n, modality_n = self._expand(ids, grids)
        if len(token_id_n) > self._longest:
            detail = f"{len(token_id_n)} tokens, but the model has {self._longest} positions"
            raise RejectedSampleError("too-long", detail)
        tiles = [self._tiles(picture, grid) for picture, grid in zip(pictures, grids, strict=True)]
        images = tuple(
            PreparedImage(index, picture.height, picture.width, grid.n_tokens)
            for index, picture, grid in zip(order, pictures, grids, strict=True)
        )
        tensors = {"pixel_values": torch.cat(tiles)} if tiles else {}
        return PreparedSample(sample.sample_id, token_id_n, modality_n, images, tensors)

    def _apply_chat_template(self, conversation: Any, add_generation_prompt: bool) -> str:
        return str(
            self._processor.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        )

    def _decode(self, encoded: bytes) -> Image.Image:
        picture = decode_image(encoded)
        if self._settings.image_mode == "paper-336":
            return picture.resize((self._tile, self._tile), Image.Resampling.BICUBIC)
        return picture

    def _grid(self, height: int, width: int) -> AnyresGrid:
        return anyres_grid(height, width, self._pinpoints, self._tile, self._patch)

    def _tiles(self, picture: Image.Image, grid: AnyresGrid) -> torch.Tensor:
        """Return an image's tiles, (n_tiles, 3, tile, tile) in the model's dtype, base first."""
        try:
            tiles = self._processor.image_processor(images=[picture], return_tensors="pt")
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            detail = f"{picture.width}×{picture.height}: {error}"
            raise RejectedSampleError("unprocessable-image", detail) from error
        pixels: torch.Tensor = tiles["pixel_values"][0]
        if pixels.shape != (grid.n_tiles, 3, self._tile, self._tile):
            raise DataError(
                f"the image processor cut a {picture.width}×{picture.height} image into "
                f"{tuple(pixels.shape)}, not {grid.n_tiles} tiles; check preprocessor_config.json."
            )
        return pixels.to(self.dtype)

    def _expand(
        self, ids: Sequence[int], grids: Sequence[AnyresGrid]
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

    @torch.no_grad()
    def hidden_states(self, prepared: Sequence[PreparedSample]) -> TokenBatch:
        """Run one padded forward pass; see `HiddenStateModel.hidden_states`."""
        lengths = [sample.n_tokens for sample in prepared]
        id_bt = np.zeros((len(prepared), max(lengths)), np.int64)
        for row, sample in enumerate(prepared):
            id_bt[row, : lengths[row]] = sample.token_id_n
        embeds_btd = self._model.get_input_embeddings()(self._send(torch.from_numpy(id_bt)))
        image_positions = np.flatnonzero(id_bt == self._text.image_id)
        if len(image_positions):
            features_md = self._image_features(prepared)
            if len(features_md) != len(image_positions):
                raise DataError(
                    f"the model makes {len(features_md)} features of images that have "
                    f"{len(image_positions)} placeholders; check vision_feature_select_strategy."
                )
            rows = self._send(torch.from_numpy(image_positions))
            embeds_btd.view(-1, self.d_in).index_copy_(0, rows, features_md.to(embeds_btd.dtype))
        out_btd = self._model.language_model(
            inputs_embeds=embeds_btd, use_cache=False
        ).last_hidden_state
        # The lengths are known on the host, so that cutting the padding off does not wait.
        acts_nd = torch.cat([out_btd[row, :length] for row, length in enumerate(lengths)])
        return token_batch(prepared, acts_nd)

    def _image_features(self, prepared: Sequence[PreparedSample]) -> torch.Tensor:
        """Return the features of all images, (m, d_in), packed as their placeholders stand."""
        tiles = torch.cat([s.tensors["pixel_values"] for s in prepared if s.images])
        # Sizes stay on the host: the model's packing reads them one by one.
        sizes = [[image.height, image.width] for sample in prepared for image in sample.images]
        output = self._model.get_image_features(
            pixel_values=self._send(tiles), image_sizes=sizes, return_dict=True
        )
        return torch.cat(list(output.pooler_output))

    def _send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Move to the model's device without waiting for it."""
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def image_boxes(self, sample: Sample, prepared: PreparedSample) -> list[PatchBox]:
        """Return the box of every image token but newlines; see `HiddenStateModel.image_boxes`."""
        if sample.sample_id != prepared.sample_id:
            raise ValueError(f"prepared is of {prepared.sample_id!r}, not {sample.sample_id!r}")
        positions = iter(np.flatnonzero(prepared.token_id_n == self._text.image_id).tolist())
        boxes = []
        for image in prepared.images:
            for edges in self._grid(image.height, image.width).boxes().tolist():
                position = next(positions)
                if edges[0] == edges[0]:  # a newline's are NaN
                    boxes.append(PatchBox(position, image.index, *edges))
        return boxes
