"""Encoded image bytes to upright RGB."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from raysae.errors import RejectedSampleError
from raysae.sample import IMAGE_FORMATS

_WHITE = (255, 255, 255, 255)
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


def decode_image(encoded: bytes) -> Image.Image:
    """Decode an image as a person would see it: upright, on white, 8-bit RGB.

    EXIF rotation is applied, transparency is flattened on white, palettes, greyscale, CMYK and
    16-bit images are converted, of an animation the first frame counts.

    Args:
        encoded: In one of `IMAGE_FORMATS`.

    Returns:
        Mode `RGB`.

    Raises:
        RejectedSampleError: `image-bomb`, `truncated-image` or `undecodable-image`.
    """
    try:
        with warnings.catch_warnings():
            # Below twice its pixel limit Pillow only warns; the corpora bound the size.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=IMAGE_FORMATS)
            image.load()
            return _to_rgb(_upright(image))
    except Image.DecompressionBombError as error:
        raise RejectedSampleError("image-bomb", str(error)) from error
    except UnidentifiedImageError as error:
        raise RejectedSampleError("undecodable-image", "no known image format") from error
    except MemoryError:  # the machine's fault, not the image's
        raise
    # Pillow raises what the damage happens to trip over: OSError, SyntaxError, struct.error, …
    except Exception as error:
        reason = "truncated-image" if "truncated" in str(error).lower() else "undecodable-image"
        raise RejectedSampleError(reason, str(error)) from error


def _upright(image: Image.Image) -> Image.Image:
    """Apply EXIF's orientation; EXIF that cannot be read turns nothing.

    Pillow's own `exif_transpose` writes the other entries anew, and fails where one of them is odd.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        turn = _TURNS.get(orientation)
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale deep greyscale to 0–255; Pillow's own conversion clips it."""
    values = np.asarray(image, np.float64)
    full = 65535.0 if image.mode.startswith("I") else 1.0
    if values.size and values.max() <= 255.0 and (image.mode == "I" or values.max() > full):
        full = 255.0
    return Image.fromarray(np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8))
