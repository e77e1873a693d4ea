"""LLaVA-NeXT: images of any size as a base tile and a grid of high-resolution tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from raysae.models.anyres import AnyresGrid, anyres_grid
from raysae.models.settings import ModelSettings
from raysae.models.vision import VisionDecoder


class LlavaNext(VisionDecoder):
    """LLaVA-NeXT cut after a block.

    Raises:
        SettingsError: Crop size, grids or the image token differ between processor and model.
    """

    def __init__(
        self, settings: ModelSettings, model: Any, processor: Any, directory: Path
    ) -> None:
        super().__init__(settings, model, processor, directory)
        self._pinpoints = [tuple(grid) for grid in model.config.image_grid_pinpoints]
        cutter = processor.image_processor
        self._check_pairs(
            {
                "crop size": (cutter.crop_size["height"], self._tile),
                "image grids": ([tuple(g) for g in cutter.image_grid_pinpoints], self._pinpoints),
            }
        )

    def _grid(self, height: int, width: int) -> AnyresGrid:
        return anyres_grid(height, width, self._pinpoints, self._tile, self._patch)

    @property
    def _newline_1d(self) -> torch.Tensor:
        newline: torch.Tensor = self._model.image_newline
        return newline[None]
