"""The two types that everything passes: `Sample` before the model, `TokenBatch` after it.

Shape letters used throughout raysae: n tokens, d `d_in`, f `d_sae` features, k active features per
token, s samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

Role = Literal["system", "user", "assistant"]

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's names of the image formats that are opened. No other decoder is ever run: EPS, for one,
would start Ghostscript on the file. (A phone's MPO is opened as the JPEG that it begins with.)"""


class Modality(IntEnum):
    """What a token stands for. Stored as uint8, so the numbers are part of the cache format."""

    TEXT = 0
    IMAGE = 1
    SPECIAL = 2


@dataclass(frozen=True)
class TextPart:
    """A run of text inside a message."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """A place where an image stands; `index` points into `Sample.images`."""

    index: int


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: a role and its interleaved text and images."""

    role: Role
    parts: tuple[TextPart | ImagePart, ...]

    @property
    def text(self) -> str:
        """The text parts, joined by single spaces, without the images."""
        return " ".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True)
class Sample:
    """One usable row of a corpus.

    Attributes:
        sample_id: The source's own id, else `<file fingerprint>-<row>`.
        ordinal: Row number in the whole corpus snapshot; orders ties, whatever the sharding.
        messages: The conversation up to the answer (for preference data: the question).
        images: Encoded bytes in one of `IMAGE_FORMATS`, never pixels.
        chosen: The better answer, where the source has preferences.
        rejected: The worse answer, likewise.
    """

    sample_id: str
    ordinal: int
    messages: tuple[Message, ...]
    images: tuple[bytes, ...]
    chosen: str | None = None
    rejected: str | None = None


@dataclass(frozen=True)
class Rejection:
    """A row that cannot be used, and why.

    Attributes:
        sample_id: As in `Sample`.
        ordinal: As in `Sample`.
        reason: A short slug, e.g. `empty-question`; counts are grouped by it.
        detail: One sentence for a person.
    """

    sample_id: str
    ordinal: int
    reason: str
    detail: str


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Count rejections by reason, sorted by it."""
    return dict(sorted(Counter(reasons).items()))


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of several samples, concatenated without padding.

    Attributes:
        sample_n: int32 (n,), index of each token's sample in the sequence that was given.
        position_n: int32 (n,), position inside the sample.
        token_id_n: int32 (n,), the input id; image tokens carry the image placeholder's id.
        modality_n: uint8 (n,), a `Modality`.
        acts_nd: Tensor (n, d_in), the hidden states, in the model's dtype and on its device.
    """

    sample_n: npt.NDArray[np.int32]
    position_n: npt.NDArray[np.int32]
    token_id_n: npt.NDArray[np.int32]
    modality_n: npt.NDArray[np.uint8]
    acts_nd: torch.Tensor

    def __len__(self) -> int:
        return len(self.position_n)
