"""Pictures in a report: decoded, made small, encoded anew as JPEG, embedded as data URIs.

Only pixels that Pillow decoded reach the page, so no SVG, script or odd MIME type goes through, and
the size of a picture is bounded whatever the corpus holds. Pictures are shown as the model sees
them: upright, transparency on white.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

from raysae.interpret.cards import Box
from raysae.models import decode_image
from raysae.sample import IMAGE_FORMATS

MAX_PIXELS = 100_000_000
"""Larger images are not decoded; the corpus stage rejects far smaller ones."""

SAMPLE_SIDE = 288
"""Longest side of a sample's picture in pixels, drawn at 160 CSS pixels or less."""

PATCH_SIDE = 160
"""Longest side of a patch's picture in pixels, drawn at about 80 CSS pixels."""

_QUALITY = 75
_CONTEXT_PATCHES = 6.0
_CONTEXT_SHARE = 0.4
_OUTLINES = (("black", 4), ("#ffd400", 2))
"""Yellow on black, drawn in this order: seen on any background."""


@dataclass(frozen=True)
class Picture:
    """A picture ready to embed.

    Attributes:
        uri: `data:image/jpeg;base64,…`.
        width: In pixels.
        height: In pixels.
    """

    uri: str
    width: int
    height: int


def thumbnail(data: bytes | None, side: int = SAMPLE_SIDE) -> Picture | None:
    """Return a small copy of an encoded image; None if it cannot be decoded.

    Args:
        data: Encoded bytes in any format of Pillow's common ones.
        side: Bound on the longer side in pixels; smaller images stay as they are.
    """
    image = _decode(data)
    if image is None:
        return None
    image.thumbnail((side, side))
    return _encode(image)


def patch_picture(data: bytes, box: Box, side: int = PATCH_SIDE) -> Picture | None:
    """Return the surroundings of a patch with the patch outlined; None if that cannot be drawn.

    Args:
        data: Encoded bytes of the whole image.
        box: The patch, as fractions of the image; parts outside [0, 1] are cut off.
        side: Longer side of the result in pixels; small crops are enlarged to it.
    """
    image = _decode(data)
    if image is None or not all(math.isfinite(edge) for edge in box):
        return None
    left, top, right, bottom = _pixels(box, image.width, image.height)
    context = max(
        _CONTEXT_PATCHES * max(right - left, bottom - top),
        _CONTEXT_SHARE * min(image.width, image.height),
    )
    x_start, x_stop = _window((left + right) / 2, context, image.width)
    y_start, y_stop = _window((top + bottom) / 2, context, image.height)
    crop = image.crop((x_start, y_start, x_stop, y_stop))
    scale = side / max(crop.width, crop.height)
    crop = crop.resize((max(round(crop.width * scale), 1), max(round(crop.height * scale), 1)))
    corners = [(left - x_start) * scale, (top - y_start) * scale]
    corners += [(right - x_start) * scale - 1, (bottom - y_start) * scale - 1]
    draw = ImageDraw.Draw(crop)
    for colour, width in _OUTLINES:
        draw.rectangle(_around(corners, width, crop.size), outline=colour, width=width)
    return _encode(crop)


def _around(corners: list[float], margin: int, size: tuple[int, int]) -> list[float]:
    """Move a rectangle's edges outwards, so that the line covers little of what it encloses.

    At the picture's border the line stays inside the picture, so that the box is closed.
    """
    left, top, right, bottom = corners
    return [
        max(left - margin, 0),
        max(top - margin, 0),
        min(max(right, left) + margin, size[0] - 1),
        min(max(bottom, top) + margin, size[1] - 1),
    ]


def _pixels(box: Box, width: int, height: int) -> Box:
    """Turn fractions into pixels inside the image, at least one pixel each way."""
    left, right = sorted(min(max(edge, 0.0), 1.0) * width for edge in (box[0], box[2]))
    top, bottom = sorted(min(max(edge, 0.0), 1.0) * height for edge in (box[1], box[3]))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _window(centre: float, length: float, limit: int) -> tuple[int, int]:
    """Return (start, stop) of a stretch about `centre`, pushed inside [0, limit]."""
    length = min(max(round(length), 1), limit)
    start = min(max(round(centre - length / 2), 0), limit - int(length))
    return start, start + int(length)


def _decode(data: bytes | None) -> Image.Image | None:
    """Decode as the model's processor does; None for what is missing, too large or damaged."""
    if not data:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
        return decode_image(data)
    except Exception:  # decoders of damaged files raise nearly anything, and a report must not fail
        return None


def _encode(image: Image.Image) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, image.width, image.height)
