"""LLaVA-NeXT's image grid: which tokens an image becomes and which part of it each one shows.

An image is shown twice. The base tile is the whole image squeezed to the vision tower's square.
The high-resolution view is the image scaled into the grid of tiles that suits it best, centred,
padded to that grid; rows or columns of patches that are mostly padding are dropped again
("unpadding"), and each row that is left ends with one newline token.
Tokens: base patches row by row, then per high-resolution row its patches and a newline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysae.models.grids import NEWLINE, unit_cells


@dataclass(frozen=True)
class AnyresGrid:
    """The layout of one image.

    Attributes:
        side: Patches along a tile's edge.
        tiles_high: Rows of high-resolution tiles.
        tiles_wide: Columns of them.
        rows: High-resolution rows of patches that remain after unpadding.
        columns: Likewise.
        first_row: Rows dropped at the top (as many go at the bottom).
        first_column: Likewise at the left.
        picture: Where the scaled image lies on the padded grid: left, top, width and height, in
            patches.
    """

    side: int
    tiles_high: int
    tiles_wide: int
    rows: int
    columns: int
    first_row: int
    first_column: int
    picture: tuple[float, float, float, float]

    @property
    def n_tiles(self) -> int:
        """Squares that the vision tower sees, the base tile included."""
        return 1 + self.tiles_high * self.tiles_wide

    @property
    def n_tokens(self) -> int:
        """Tokens of the image, newlines included."""
        return self.side**2 + self.rows * (self.columns + 1)

    def sources(self) -> npt.NDArray[np.int64]:
        """Return which of the image's patches each token is; see `Grid.sources`."""
        row, column = np.mgrid[0 : self.rows, 0 : self.columns]
        row, column = row + self.first_row, column + self.first_column
        tile = 1 + (row // self.side) * self.tiles_wide + column // self.side
        patch = (row % self.side) * self.side + column % self.side
        high = np.full((self.rows, self.columns + 1), NEWLINE, np.int64)
        high[:, :-1] = tile * self.side**2 + patch
        return np.concatenate([np.arange(self.side**2), high.reshape(-1)])

    def newlines(self) -> npt.NDArray[np.bool_]:
        """Return, per token, whether it is a newline: bool (n_tokens,)."""
        return np.equal(self.sources(), NEWLINE)

    def boxes(self) -> npt.NDArray[np.float64]:
        """Return each token's (left, top, right, bottom) as fractions of the image.

        Returns:
            float64 (n_tokens, 4), within [0, 1]; NaN for newlines.
        """
        base = unit_cells(self.side, self.side) / self.side
        left, top, width, height = self.picture
        high = np.full((self.rows, self.columns + 1, 4), np.nan)
        patches = unit_cells(self.rows, self.columns).reshape(self.rows, self.columns, 4)
        patches[..., 0::2] = (patches[..., 0::2] + self.first_column - left) / width
        patches[..., 1::2] = (patches[..., 1::2] + self.first_row - top) / height
        high[:, :-1] = patches.clip(0.0, 1.0)
        return np.concatenate([base, high.reshape(-1, 4)])


def anyres_grid(
    height: int, width: int, pinpoints: Sequence[Sequence[int]], tile: int, patch: int
) -> AnyresGrid:
    """Lay out an image.

    Args:
        height: Pixels of the image.
        width: Likewise.
        pinpoints: Grids to choose from, as (height, width) in pixels, multiples of `tile`.
        tile: Edge of the vision tower's square, in pixels.
        patch: Edge of a patch, in pixels.
    """
    grid_height, grid_width = _best_pinpoint(height, width, pinpoints)
    side = tile // patch
    tiles_high, tiles_wide = grid_height // tile, grid_width // tile
    rows, columns = side * tiles_high, side * tiles_wide
    first_row = first_column = 0
    # The rounding to 7 digits is the model's: it decides between two layouts at exact ratios.
    if width / height > columns / rows:
        first_row = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        first_column = (columns - int(round(width * (rows / height), 7))) // 2
    return AnyresGrid(
        side,
        tiles_high,
        tiles_wide,
        rows - 2 * first_row,
        columns - 2 * first_column,
        first_row,
        first_column,
        _picture(height, width, grid_height, grid_width, patch),
    )


def _best_pinpoint(height: int, width: int, pinpoints: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Choose the grid that keeps most of the image's pixels, then the one that wastes least."""

    def merit(pinpoint: Sequence[int]) -> tuple[int, int]:
        scale = min(pinpoint[1] / width, pinpoint[0] / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - pinpoint[0] * pinpoint[1]

    # `max` keeps the first of equals, as the model's own search does.
    best = max(pinpoints, key=merit)
    return best[0], best[1]


def _picture(
    height: int, width: int, grid_height: int, grid_width: int, patch: int
) -> tuple[float, float, float, float]:
    """Return left, top, width, height of the scaled image on its grid, in patches."""
    scale_width, scale_height = grid_width / width, grid_height / height
    if scale_width < scale_height:
        scaled_width, scaled_height = grid_width, min(math.ceil(height * scale_width), grid_height)
    else:
        scaled_width, scaled_height = min(math.ceil(width * scale_height), grid_width), grid_height
    left, top = (grid_width - scaled_width) // 2, (grid_height - scaled_height) // 2
    return left / patch, top / patch, scaled_width / patch, scaled_height / patch
