"""LLaVA-1.5's image layout: one square of patches, cut out of the middle of the scaled image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raysae.errors import RejectedSampleError
from raysae.models.grids import unit_cells

MAX_SCALED_PIXELS = 8192 * 8192
"""Most pixels of a padded or scaled image: that of a thin one could fill the memory."""


@dataclass(frozen=True)
class SquareView:
    """How an image processor makes a square of an image, and the tower patches of the square.

    Attributes:
        padded: Whether the image is first centred on a square canvas of its longer edge.
        edge: Pixels that its shorter edge is then scaled to.
        exact: Whether both edges are scaled to `edge`, whatever the image's proportions.
        crop: Edge of the square that is cut out of the middle, in pixels, at most `edge`.
        patch: Edge of a patch, in pixels.
        class_token: Whether the tower's class token stands before the patches.
    """

    padded: bool
    edge: int
    exact: bool
    crop: int
    patch: int
    class_token: bool

    def grid(self, height: int, width: int) -> SquareGrid:
        """Lay out an image of a size in pixels.

        Raises:
            RejectedSampleError: `unprocessable-image`: it is so thin that padding or scaling it
                takes more than `MAX_SCALED_PIXELS`.
        """
        canvas_height = max(height, width) if self.padded else height
        canvas_width = max(height, width) if self.padded else width
        left, top = (canvas_width - width) // 2, (canvas_height - height) // 2
        scaled_height, scaled_width = self._scaled(canvas_height, canvas_width)
        if max(canvas_height * canvas_width, scaled_height * scaled_width) > MAX_SCALED_PIXELS:
            detail = f"{width}×{height} pixels are too thin to be made a square of {self.crop}"
            raise RejectedSampleError("unprocessable-image", detail)
        down, right = scaled_height / canvas_height, scaled_width / canvas_width
        picture = (
            (left * right - (scaled_width - self.crop) // 2) / self.patch,
            (top * down - (scaled_height - self.crop) // 2) / self.patch,
            width * right / self.patch,
            height * down / self.patch,
        )
        return SquareGrid(self.crop // self.patch, picture, self.class_token)

    def _scaled(self, height: int, width: int) -> tuple[int, int]:
        if self.exact:
            return self.edge, self.edge
        # The rounding is the image processors': of the longer edge, towards zero.
        longer = int(self.edge * max(height, width) / min(height, width))
        return (longer, self.edge) if height > width else (self.edge, longer)


@dataclass(frozen=True)
class SquareGrid:
    """The layout of one image.

    Attributes:
        side: Patches along the square's edge.
        picture: Where the scaled image lies on the square: left, top, width and height, in patches.
            What lies outside of the square is seen by no token.
        class_token: Whether the first token is the tower's class token, which has no place.
    """

    side: int
    picture: tuple[float, float, float, float]
    class_token: bool

    n_tiles = 1
    """Squares that the vision tower sees."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the image."""
        return self.side**2 + self.class_token

    def sources(self) -> npt.NDArray[np.int64]:
        """Return which of the image's features each token is: all, in their order."""
        return np.arange(self.n_tokens)

    def newlines(self) -> npt.NDArray[np.bool_]:
        """Return, per token, whether it is a newline: none is. bool (n_tokens,)."""
        return np.zeros(self.n_tokens, np.bool_)

    def boxes(self) -> npt.NDArray[np.float64]:
        """Return each token's (left, top, right, bottom) as fractions of the image.

        Returns:
            float64 (n_tokens, 4), within [0, 1]; NaN for the class token.
        """
        left, top, width, height = self.picture
        cells = unit_cells(self.side, self.side)
        cells[:, 0::2] = (cells[:, 0::2] - left) / width
        cells[:, 1::2] = (cells[:, 1::2] - top) / height
        without_place = np.full((int(self.class_token), 4), np.nan)
        return np.concatenate([without_place, cells.clip(0.0, 1.0)])
