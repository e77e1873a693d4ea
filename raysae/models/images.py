"""Encoded image bytes to upright RGB, or to no more than its size."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from raysae.errors import RejectedSampleError
from raysae.sample import IMAGE_FORMATS

_WHITE = (255, 255, 255, 255)
_FROM_16_BITS = np.rint(np.arange(65536) * (255 / 65535)).astype(np.uint8)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation → what puts the picture upright."""

_LYING = frozenset({5, 6, 7, 8})
"""Orientations whose turn exchanges width and height."""

_PNG_MARKERS = (b"eXIf", b"exif\0", b"xmp\0")
"""What a PNG with an orientation contains: the chunk, or the end of a text chunk's keyword."""


def decode_image(encoded: bytes) -> Image.Image:
    """Decode an image as a person would see it: upright, on white, 8-bit RGB.

    EXIF rotation is applied, transparency is flattened on white, palettes, greyscale, CMYK and
    16-bit images are converted, of an animation the first frame counts. May be called from several
    threads at once.

    Args:
        encoded: In one of `IMAGE_FORMATS`.

    Returns:
        Mode `RGB`.

    Raises:
        RejectedSampleError: `image-bomb`, `truncated-image` or `undecodable-image`.
    """
    with _rejecting():
        image = _open(encoded)
        image.load()
        return _to_rgb(_upright(image))


def upright_size(encoded: bytes) -> tuple[int, int]:
    """Return the size that `decode_image` would give, without decoding the pixels.

    A PNG whose orientation stands behind its pixels has to be decoded all the same.

    Args:
        encoded: In one of `IMAGE_FORMATS`.

    Returns:
        (width, height) in pixels. An image that cannot be decoded may have a size nevertheless.

    Raises:
        RejectedSampleError: As `decode_image`, for what cannot be opened.
    """
    with _rejecting():
        image = _open(encoded)
        width, height = image.size
        return (height, width) if _is_stored_lying(image, encoded) else (width, height)


@contextmanager
def _rejecting() -> Iterator[None]:
    """Turn what Pillow raises into a rejection with a reason."""
    try:
        yield
    # Below twice its pixel limit Pillow only warns, unless warnings are errors; the corpora bound
    # the size. Warnings cannot be silenced here: their filters are the whole process's.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedSampleError("image-bomb", str(error)) from error
    except UnidentifiedImageError as error:
        raise RejectedSampleError("undecodable-image", "no known image format") from error
    except MemoryError:  # the machine's fault, not the image's
        raise
    # Pillow raises what the damage happens to trip over: OSError, SyntaxError, struct.error, …
    except Exception as error:
        reason = "truncated-image" if "truncated" in str(error).lower() else "undecodable-image"
        raise RejectedSampleError(reason, str(error) or type(error).__name__) from error


def _open(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded), formats=IMAGE_FORMATS)


def _is_stored_lying(image: Image.Image, encoded: bytes) -> bool:
    """Tell whether putting an opened image upright exchanges the width and height it gives."""
    if isinstance(image, PngImageFile) and not any(marker in encoded for marker in _PNG_MARKERS):
        return False  # Pillow would decode all pixels to look for EXIF behind them.
    if isinstance(image, TiffImageFile) and image.tag_v2.get(ExifTags.Base.Orientation) in _LYING:
        return False  # Pillow gives the upright size already.
    return _orientation(image) in _LYING


def _orientation(image: Image.Image) -> int | None:
    """Return EXIF's or XMP's orientation; None for metadata that cannot be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except MemoryError:
        raise
    except Exception:
        return None
    return orientation if orientation in _TURNS else None


def _upright(image: Image.Image) -> Image.Image:
    """Apply EXIF's orientation; EXIF that cannot be read turns nothing.

    Pillow's own `exif_transpose` writes the other entries anew, and fails where one of them is odd.
    """
    orientation = _orientation(image)
    return image if orientation is None else image.transpose(_TURNS[orientation])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale deep greyscale to 0–255; Pillow's own conversion clips it. NaN is black."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(_FROM_16_BITS[np.asarray(image)])
    values = np.nan_to_num(np.asarray(image, np.float64))
    full = 65535.0 if image.mode == "I" else 1.0
    if values.size and values.max() <= 255.0 and (image.mode == "I" or values.max() > full):
        full = 255.0
    return Image.fromarray(np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8))
