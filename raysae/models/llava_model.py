"""LLaVA-1.5: each image as one square of patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raysae.errors import SettingsError
from raysae.models.settings import ModelSettings
from raysae.models.square import SquareGrid, SquareView
from raysae.models.vision import VisionDecoder


class Llava(VisionDecoder):
    """LLaVA-1.5 cut after a block.

    Raises:
        SettingsError: Crop size or the image token differ between processor and model, or the
            processor makes no square of an image.
    """

    def __init__(
        self, settings: ModelSettings, model: Any, processor: Any, directory: Path
    ) -> None:
        super().__init__(settings, model, processor, directory)
        cutter = processor.image_processor
        crop = (cutter.crop_size["height"], cutter.crop_size["width"])
        self._check_pairs({"crop size": (crop, (self._tile, self._tile))})
        self._view = SquareView(
            # CLIP's own processor pads as well, but only images among each other.
            padded=type(cutter).__name__.startswith("Llava") and bool(cutter.do_pad),
            edge=_edge(cutter, self._tile, directory),
            exact=not cutter.size.get("shortest_edge"),
            crop=self._tile,
            patch=self._patch,
            class_token=self._whole,
        )

    def _grid(self, height: int, width: int) -> SquareGrid:
        return self._view.grid(height, width)


def _edge(cutter: Any, crop: int, directory: Path) -> int:
    """Return the pixels that an image's shorter edge is scaled to.

    Raises:
        SettingsError: They are no fixed number, or fewer than are cut out.
    """
    size = {name: edge for name, edge in dict(cutter.size).items() if edge}
    edges = set(size.values())
    known = size.keys() in ({"shortest_edge"}, {"height", "width"})
    if not (cutter.do_resize and cutter.do_center_crop and known and len(edges) == 1):
        raise SettingsError(
            f"model.path: {directory} scales images to {size} and then cuts a square only if told "
            "so; in its preprocessor_config.json set do_resize, do_center_crop and "
            "size.shortest_edge."
        )
    edge = int(edges.pop())
    if edge < crop:
        raise SettingsError(
            f"model.path: {directory} scales images to {edge} pixels, of which no square of {crop} "
            "can be cut; correct size.shortest_edge in its preprocessor_config.json."
        )
    return edge
