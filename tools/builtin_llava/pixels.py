"""Drawings as tensors: read once, then augmented and tiled in batches without Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from builtin_llava.drawings import Drawing, load_rgba
from builtin_llava.tokens import TILE

CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
FULL = 2 * TILE


def load_gallery(drawings: Sequence[Drawing], cache: Path | None = None) -> torch.Tensor:
    """All drawings as premultiplied RGBA, uint8 (n, 4, 128, 128); `cache` spares the reading."""
    if cache is not None and cache.exists():
        gallery = torch.from_numpy(np.load(cache))
        if len(gallery) == len(drawings):
            return gallery
    with ThreadPoolExecutor(2) as pool:
        arrays = list(pool.map(lambda drawing: load_rgba(drawing, FULL), drawings))
    rgba = np.stack(arrays).transpose(0, 3, 1, 2).astype(np.float32)
    rgba[:, :3] *= rgba[:, 3:] / 255
    gallery = torch.from_numpy(rgba.round().astype(np.uint8))
    if cache is not None:
        np.save(cache, gallery.numpy())
    return gallery


def random_backgrounds(count: int) -> torch.Tensor:
    """Colours (count, 3, 1, 1) in [0, 1]: white, black or any, mostly light."""
    colours = torch.rand(count, 3) ** 0.5
    chance = torch.rand(count, 1)
    colours = torch.where(chance < 0.5, torch.ones(()), colours)
    return torch.where(chance > 0.93, torch.zeros(()), colours)[..., None, None]


def render(
    gallery: torch.Tensor,
    flippable: torch.Tensor,
    size: int,
    backgrounds: torch.Tensor,
    *,
    strength: float = 1.0,
    zoom_share: float = 0.0,
) -> torch.Tensor:
    """Augmented pictures (n, 3, size, size) in [0, 1] of premultiplied RGBA (n, 4, s, s).

    Turned, stretched, shifted, mirrored where `flippable`, recoloured, blurred, in part erased.
    `strength` scales all of it; `zoom_share` of the pictures show about a quarter of a drawing.
    """
    count = len(gallery)
    grid = functional.affine_grid(
        _affine(count, flippable, strength, zoom_share), [count, 4, size, size], align_corners=False
    )
    source = gallery.float() / 255
    if size < source.shape[-1]:
        source = functional.avg_pool2d(source, source.shape[-1] // size)
    moved = functional.grid_sample(source, grid, mode="bilinear", align_corners=False)
    colour, alpha = moved[:, :3], moved[:, 3:]
    colour = _recolour(colour, alpha, strength)
    picture = colour + (1 - alpha) * backgrounds
    return _erase(_blur(picture, strength), strength).clamp(0, 1)


def _affine(
    count: int, flippable: torch.Tensor, strength: float, zoom_share: float
) -> torch.Tensor:
    angle = torch.randn(count) * 0.18 * strength
    scale = torch.exp(torch.randn(count) * 0.12 * strength + 0.08 * strength)
    stretch = torch.exp(torch.randn(count) * 0.08 * strength)
    shift = (torch.rand(count, 2) - 0.5) * 0.3 * strength
    zoomed = torch.rand(count) < zoom_share
    scale = torch.where(zoomed, torch.full_like(scale, 0.55), scale)
    shift = torch.where(zoomed[:, None], (torch.rand(count, 2) - 0.5) * 1.0, shift)
    mirror = torch.where(flippable & (torch.rand(count) < 0.4 * min(strength, 1.0)), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cos * scale * stretch * mirror, -sin * scale, shift[:, 0]], 1),
        torch.stack([sin * scale * mirror, cos * scale / stretch, shift[:, 1]], 1),
    ]
    return torch.stack(rows, 1)


def _recolour(colour: torch.Tensor, alpha: torch.Tensor, strength: float) -> torch.Tensor:
    """A colour matrix near the identity, contrast and brightness, per picture."""
    count = len(colour)
    matrix = torch.eye(3) + 0.09 * strength * torch.randn(count, 3, 3)
    mixed = torch.einsum("nij,njhw->nihw", matrix, colour)
    contrast = 1 + 0.18 * strength * torch.randn(count, 1, 1, 1)
    brightness = 0.07 * strength * torch.randn(count, 1, 1, 1)
    mixed = (mixed - 0.5 * alpha) * contrast + (0.5 + brightness) * alpha
    grey = mixed.mean(1, keepdim=True).expand_as(mixed)
    mixed = torch.where(torch.rand(count, 1, 1, 1) < 0.05 * strength, grey, mixed)
    return torch.minimum(mixed.clamp(min=0), alpha)


def _blur(picture: torch.Tensor, strength: float) -> torch.Tensor:
    """A third of the pictures lose their fine structure."""
    size = picture.shape[-1]
    small = functional.interpolate(picture, size // 2, mode="area")
    blurred = functional.interpolate(small, size, mode="bilinear", align_corners=False)
    chosen = torch.rand(len(picture), 1, 1, 1) < 0.3 * strength
    return torch.where(chosen, blurred, picture)


def _erase(picture: torch.Tensor, strength: float) -> torch.Tensor:
    """A quarter of the pictures lose a rectangle to a random colour."""
    count, size = len(picture), picture.shape[-1]
    start = torch.rand(count, 2) * 0.75
    end = start + 0.15 + 0.2 * torch.rand(count, 2)
    line = torch.arange(size) / size
    rows = (line >= start[:, :1]) & (line < end[:, :1])
    columns = (line >= start[:, 1:]) & (line < end[:, 1:])
    chosen = (torch.rand(count) < 0.25 * strength)[:, None, None]
    hole = (rows[:, :, None] & columns[:, None, :] & chosen)[:, None]
    return torch.where(hole, torch.rand(count, 3, 1, 1), picture)


def normalise(picture: torch.Tensor) -> torch.Tensor:
    """[0, 1] → what CLIP's image processors hand on."""
    return (picture - CLIP_MEAN) / CLIP_STD


def tile(picture: torch.Tensor) -> torch.Tensor:
    """Normalised tiles (n, 1 + tiles, 3, 64, 64) of pictures whose sides are multiples of 64.

    The same as LLaVA-NeXT's processor: first the whole picture squeezed, then its tiles.
    """
    count, _, height, width = picture.shape
    base = picture
    if (height, width) != (TILE, TILE):
        base = functional.interpolate(picture, (TILE, TILE), mode="bicubic", antialias=True).clamp(
            0, 1
        )
    parts = picture.unfold(2, TILE, TILE).unfold(3, TILE, TILE)
    parts = parts.permute(0, 2, 3, 1, 4, 5).reshape(count, -1, 3, TILE, TILE)
    return normalise(torch.cat([base[:, None], parts], 1))
