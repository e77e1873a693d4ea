"""A text model that is shown images: tower, projector, and a place in the prompt for each image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from raysae.errors import DataError, RejectedSampleError, SettingsError
from raysae.models.base import PatchBox, PreparedImage, PreparedSample
from raysae.models.decoder import Decoder
from raysae.models.grids import NEWLINE, Grid
from raysae.models.images import decode_image, upright_size
from raysae.models.memory import is_out_of_memory
from raysae.models.processors import Tokenizer, chat_template
from raysae.models.settings import ModelSettings
from raysae.models.waiting import pinned, send
from raysae.sample import Sample


class VisionDecoder(Decoder):
    """LLaVA's family: a CLIP tower whose patch features, projected, replace placeholders.

    Args:
        settings: What is read, and how it is shown.
        model: transformers' headless model, its final norm replaced by the identity.
        processor: transformers' processor, with the image processor of the backend asked for.
        directory: The model, for messages.
    """

    def __init__(
        self, settings: ModelSettings, model: Any, processor: Any, directory: Path
    ) -> None:
        tokenizer = Tokenizer(processor.tokenizer, str(processor.image_token))
        template = chat_template(processor, settings, directory)
        super().__init__(settings, model, model.language_model, tokenizer, template)
        config = model.config
        self._model = model
        self._image_processor = processor.image_processor
        self._tile = int(config.vision_config.image_size)
        self._patch = int(config.vision_config.patch_size)
        self._whole: bool = config.vision_feature_select_strategy == "full"
        self._check_pairs({"image token": (tokenizer.image_id, config.image_token_id)})

    @abstractmethod
    def _grid(self, height: int, width: int) -> Grid:
        """Lay out an image of a size in pixels."""

    @property
    def _newline_1d(self) -> torch.Tensor | None:
        """The vector of newline tokens, (1, d_in), if the model has one."""
        return None

    @staticmethod
    def _check_pairs(pairs: Mapping[str, tuple[object, object]]) -> None:
        """Refuse a processor that takes something otherwise than the model does.

        Args:
            pairs: What it is called → the processor's value, the model's.

        Raises:
            SettingsError: Two differ.
        """
        for what, (processors, models) in pairs.items():
            if processors != models:
                raise SettingsError(
                    f"model.path: the {what} is {processors} to the processor but {models} to the "
                    "model; correct the model's preprocessor_config.json or tokenizer."
                )

    def _lay_out(self, images: Sequence[tuple[int, bytes]]) -> list[tuple[PreparedImage, Grid]]:
        laid_out = []
        for index, encoded in images:
            width, height = upright_size(encoded)
            if self._settings.image_mode == "paper-336":
                width = height = self._tile
            grid = self._grid(height, width)
            image = PreparedImage(index, height, width, grid.n_tokens, grid.n_tiles)
            laid_out.append((image, grid))
        return laid_out

    def fill(self, sample: Sample, outlined: PreparedSample) -> PreparedSample:
        """Decode and process the images; see `HiddenStateModel.fill`.

        Raises:
            RejectedSampleError: Reasons of `decode_image`, also where the pixels turn out to be
                others than the header said; `unprocessable-image`.
            DataError: The image processor does not do what its configuration says.
        """
        if not outlined.images:
            return outlined
        tiles = torch.cat([self._tiles(sample, image) for image in outlined.images])
        if self.device.type == "cuda":
            tiles = pinned(tiles)
        return replace(outlined, tensors={"pixel_values": tiles})

    def _tiles(self, sample: Sample, image: PreparedImage) -> torch.Tensor:
        """Return an image's tiles, (n_tiles, 3, tile, tile), in the model's dtype."""
        picture = decode_image(sample.images[image.index])
        if self._settings.image_mode == "paper-336":
            picture = picture.resize((self._tile, self._tile), Image.Resampling.BICUBIC)
        if picture.size != (image.width, image.height):
            detail = (
                f"decoded to {picture.width}×{picture.height}, but its header says "
                f"{image.width}×{image.height}"
            )
            raise RejectedSampleError("undecodable-image", detail)
        try:
            processed = self._image_processor(images=[picture], return_tensors="pt")
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            if is_out_of_memory(error):
                raise MemoryError(str(error)) from error
            detail = f"{picture.width}×{picture.height}: {error}"
            raise RejectedSampleError("unprocessable-image", detail) from error
        # With tiles (1, n_tiles, 3, tile, tile), without (1, 3, tile, tile).
        pixels: torch.Tensor = processed["pixel_values"].flatten(0, -4)
        if pixels.shape != (image.n_tiles, 3, self._tile, self._tile):
            raise DataError(
                f"the image processor cut a {picture.width}×{picture.height} image into "
                f"{tuple(pixels.shape)}, not {image.n_tiles} tiles; check preprocessor_config.json."
            )
        return pixels.to(self.dtype)

    def _inputs(
        self, id_bt: npt.NDArray[np.int64], prepared: Sequence[PreparedSample]
    ) -> dict[str, torch.Tensor]:
        """Return the embeddings, images' features in the place of their placeholders.

        Raises:
            DataError: They differ in number.
        """
        embed = self._model.get_input_embeddings()
        embeds_btd = embed(send(torch.from_numpy(id_bt), self.device))
        positions = np.flatnonzero(id_bt == self._text.image_id)
        images = [image for sample in prepared for image in sample.images]
        if len(positions) != sum(image.n_tokens for image in images):
            raise DataError(
                f"{sum(image.n_tokens for image in images)} tokens are made of images that have "
                f"{len(positions)} placeholders; prepare the samples again."
            )
        if images:
            features_md = self._features(prepared, images).to(embeds_btd.dtype)
            rows = send(torch.from_numpy(positions), self.device)
            embeds_btd.view(-1, self.d_in).index_copy_(0, rows, features_md)
        return {"inputs_embeds": embeds_btd}

    def _features(
        self, prepared: Sequence[PreparedSample], images: Sequence[PreparedImage]
    ) -> torch.Tensor:
        """Return the features of all images, (m, d_in), in the order of their tokens."""
        tiles = [send(s.tensors["pixel_values"], self.device) for s in prepared if s.images]
        features_pd = self._tower(torch.cat(tiles))
        newline = self._newline_1d
        if newline is not None:
            features_pd = torch.cat([features_pd, newline])
        # transformers packs features image by image, with lists sent to the device in between.
        sources, first = [], 0
        for image in images:
            source_n = self._grid(image.height, image.width).sources()
            sources.append(np.where(source_n == NEWLINE, len(features_pd) - 1, source_n + first))
            first += image.n_tiles * self._per_tile
        index = send(torch.from_numpy(np.concatenate(sources)), self.device)
        return features_pd.index_select(0, index)

    @property
    def _per_tile(self) -> int:
        """Features that the tower makes of one tile."""
        side = self._tile // self._patch
        return side * side + self._whole

    def _tower(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the projected features of all tiles: (n_tiles × features of a tile, d_in)."""
        layers: list[int] = self._model.config.vision_feature_layer
        states = self._model.vision_tower(
            pixels, output_hidden_states=layers, return_dict=True
        ).hidden_states
        features = torch.cat([states[layer] for layer in layers], dim=-1)
        if not self._whole:
            features = features[:, 1:]
        projected: torch.Tensor = self._model.multi_modal_projector(features)
        return projected.flatten(0, 1)

    def image_boxes(self, sample: Sample, prepared: PreparedSample) -> list[PatchBox]:
        """Return the box of every image token with a place; see `HiddenStateModel.image_boxes`."""
        boxes = super().image_boxes(sample, prepared)
        positions = iter(np.flatnonzero(prepared.token_id_n == self._text.image_id).tolist())
        for image in prepared.images:
            for edges in self._grid(image.height, image.width).boxes().tolist():
                position = next(positions)
                if edges[0] == edges[0]:  # NaN: the token shows no part of the image
                    boxes.append(PatchBox(position, image.index, *edges))
        return boxes
