"""Check an encoded image: how large it claims to be, and whether all of it decodes.

The claim is read from the header first, so that a decompression bomb costs nothing. Then the image
is decoded in full, because a truncated file shows only there; the pixels are thrown away, and the
encoded bytes travel on.
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from raysae.errors import RejectedSampleError
from raysae.sample import IMAGE_FORMATS

MAX_IMAGE_PIXELS = 8192 * 8192
"""Most pixels an image may claim: 64 Mi, 192 MiB as RGB.

It lies below Pillow's own default (89 million, where it warns, and twice that, where it raises), so
raysae's limit decides and nobody's global Pillow setting has to be touched.
"""


def check_image(data: bytes, max_pixels: int = MAX_IMAGE_PIXELS) -> tuple[int, int]:
    """Decode an image (of an animation: its first frame) and forget the pixels.

    Args:
        data: The encoded file.
        max_pixels: Most pixels the header may claim.

    Returns:
        (width, height) in pixels, as stored (EXIF orientation not applied).

    Raises:
        RejectedSampleError: `no-image`, `image-bomb`, `truncated-image` or `undecodable-image`.
        MemoryError: There is not enough to decode it.
    """
    if not data:
        raise RejectedSampleError("no-image", "the image has no bytes")
    _check_webp_header(data, max_pixels)
    try:
        image = Image.open(BytesIO(data), formats=IMAGE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedSampleError(
            "image-bomb", f"the image claims far more than the limit of {max_pixels:,} pixels"
        ) from error
    except MemoryError:  # the machine's fault, not the image's
        raise
    # Pillow raises what the damage happens to trip over: OSError, SyntaxError, struct.error, …
    except Exception as error:
        raise _broken(error, "cannot be opened") from error
    with image:
        width, height = image.size
        _check_pixels(width, height, max_pixels)
        try:
            image.load()
        except MemoryError:
            raise
        except Exception as error:
            raise _broken(error, f"({image.format}, {width}×{height}) does not decode") from error
    return width, height


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RejectedSampleError(
            "image-bomb",
            f"the image claims {width}×{height} pixels, more than the limit of {max_pixels:,}",
        )


def _check_webp_header(data: bytes, max_pixels: int) -> None:
    """Check a WebP before Pillow sees it: older Pillows allocate the canvas while opening.

    Layout: RIFF header (12 bytes), chunk name (4), chunk size (4), then per kind of chunk
    (developers.google.com/speed/webp/docs/riff_container).
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    _check_pixels(width, height, max_pixels)
    announced = int.from_bytes(data[4:8], "little") + 8
    if len(data) < announced - 1:
        raise RejectedSampleError(
            "truncated-image", f"the WebP has {len(data)} of the {announced} bytes it announces"
        )


def _broken(error: Exception, what: str) -> RejectedSampleError:
    """Tell a file that ends too early from one that is damaged otherwise, by Pillow's words."""
    words = str(error).lower()
    early = isinstance(error, EOFError) or "truncated" in words or "unexpected end" in words
    reason = "truncated-image" if early else "undecodable-image"
    # Pillow names the in-memory file by its address, which would differ from run to run.
    said = type(error).__name__ if "BytesIO object" in str(error) else str(error)
    return RejectedSampleError(reason, f"the image {what}: {said}")
