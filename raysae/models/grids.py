"""How an image becomes tokens: what every layout tells, whatever the architecture."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Grid(Protocol):
    """The layout of one image: squares for the vision tower, and tokens made of their features."""

    @property
    def n_tiles(self) -> int:
        """Squares that the vision tower sees."""
        ...

    @property
    def n_tokens(self) -> int:
        """Tokens of the image, newlines included."""
        ...

    def sources(self) -> npt.NDArray[np.int64]:
        """Return which of the image's features each token is.

        Returns:
            int64 (n_tokens,), counted tile by tile and inside a tile as the tower gives them;
            `NEWLINE` for newlines.
        """
        ...

    def newlines(self) -> npt.NDArray[np.bool_]:
        """Return, per token, whether it is a newline: bool (n_tokens,)."""
        ...

    def boxes(self) -> npt.NDArray[np.float64]:
        """Return each token's (left, top, right, bottom) as fractions of the image.

        Returns:
            float64 (n_tokens, 4), within [0, 1]; NaN for a token that shows no part of the image.
        """
        ...


NEWLINE = -1
"""Source of a token that is the model's newline vector."""


def unit_cells(rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Return (rows × columns, 4): left, top, right, bottom of unit cells, row by row."""
    top, left = np.mgrid[0:rows, 0:columns].reshape(2, -1).astype(np.float64)
    return np.stack([left, top, left + 1, top + 1], axis=1)
