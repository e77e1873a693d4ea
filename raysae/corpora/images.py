"""Check an encoded image: how large it claims to be, and whether all of it decodes.

The claim is read from the header first, so that a decompression bomb costs nothing. Then the image
is decoded in full, because a truncated file shows only there; the pixels are thrown away, and the
encoded bytes travel on. Pillow bounds neither time nor memory by the pixels alone, so what makes a
small file cost far more than its pixels is looked for in between.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Literal

from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from raysae.errors import RejectedSampleError
from raysae.sample import IMAGE_FORMATS

MAX_IMAGE_PIXELS = 8192 * 8192
"""Most pixels an image may claim: 64 Mi, 192 MiB as RGB.

It lies below Pillow's own default (89 million, where it warns, and twice that, where it raises), so
raysae's limit decides and nobody's global Pillow setting has to be touched.
"""

MAX_IMAGE_SIDE = 65_535
"""Longest side, as in JPEG and GIF. Pillow spends 12 bytes and more on each line of pixels, so that
the area alone does not bound the memory of a picture one pixel wide."""

MAX_SCANNED_PIXELS = 32 * MAX_IMAGE_PIXELS
"""Most pixels of a JPEG times its scans, each of which goes over all of them, whatever it holds.

Encoders write 1 to about 20 scans."""

MAX_RUN_LENGTH_PIXELS = 4096 * 4096
"""Most pixels of a BMP coded in run lengths, which Pillow decodes in Python: 1.6 s."""

MAX_COMMENTS = 10_000
"""Most comments in the pixels of an ASCII PPM: Pillow copies up to 1 MiB for each."""

MAX_TIFF_ENTRIES = 500
"""Most entries of a TIFF's directory; Pillow warns of each that is odd, libtiff writes a line.

Cameras and microscopes write about 100; the format's own limit is 65,535."""

_SCAN = b"\xff\xda"
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
"""A JPEG marker that a length follows, or the end of the image."""

_WIDTH, _HEIGHT, _BITS, _SAMPLES, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 322, 323
"""Tags of a TIFF."""


def check_image(data: bytes, max_pixels: int = MAX_IMAGE_PIXELS) -> tuple[int, int]:
    """Decode an image (of an animation: its first frame) and forget the pixels.

    Args:
        data: The encoded file.
        max_pixels: Most pixels the header may claim.

    Returns:
        (width, height) in pixels, as stored (EXIF orientation not applied, but a TIFF's is).

    Raises:
        RejectedSampleError: `no-image`, `image-bomb`, `truncated-image` or `undecodable-image`.
        MemoryError: There is not enough to decode it.
    """
    if not data:
        raise RejectedSampleError("no-image", "the image has no bytes")
    _check_webp_header(data, max_pixels)
    _check_tiff_header(data)
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
            _check_cost(image, data, max_pixels)
            image.load()
        except (MemoryError, RejectedSampleError):
            raise
        except Exception as error:
            raise _broken(error, f"({image.format}, {width}×{height}) does not decode") from error
        if image.mode == "P" and image.palette is None:
            raise RejectedSampleError(
                "undecodable-image", f"the image ({image.format}) has colour numbers and no palette"
            )
    return width, height


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    claim = f"the image claims {width}×{height} pixels"
    if width * height > max_pixels:
        raise RejectedSampleError("image-bomb", f"{claim}, more than the limit of {max_pixels:,}")
    if max(width, height) > MAX_IMAGE_SIDE:
        raise RejectedSampleError("image-bomb", f"{claim}; a side may have {MAX_IMAGE_SIDE:,}")


def _check_cost(image: ImageFile, data: bytes, max_pixels: int) -> None:
    """Check an opened image for what makes decoding cost far more than its pixels do."""
    width, height = image.size
    if isinstance(image, TiffImageFile):
        _check_tiff(image, data, max_pixels)
    elif image.format in ("JPEG", "MPO"):
        most = MAX_SCANNED_PIXELS // (width * height)
        # A thumbnail, or chance behind the image, counts here, but not in the slower count.
        if data.count(_SCAN) > most and (scans := _scans(data)) > most:
            raise RejectedSampleError(
                "image-bomb",
                f"the JPEG has {scans:,} scans; {width}×{height} pixels may have {most:,}",
            )
    decoder = image.tile[0][0] if image.tile else ""
    if decoder == "bmp_rle" and width * height > MAX_RUN_LENGTH_PIXELS:
        raise RejectedSampleError(
            "image-bomb",
            f"the BMP claims {width}×{height} pixels in run lengths, more than the limit of "
            f"{MAX_RUN_LENGTH_PIXELS:,}",
        )
    if decoder == "ppm_plain" and data.count(b"#") > MAX_COMMENTS:
        raise RejectedSampleError("image-bomb", f"the PPM has more than {MAX_COMMENTS:,} comments")


def _scans(data: bytes) -> int:
    """Count the scans of a JPEG as libjpeg would meet them, up to its end."""
    scans = at = 0
    while found := _MARKER.search(data, at):
        at = found.end()
        marker = found[0]
        if marker == b"\xff\xd9":
            break
        scans += marker == _SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _check_tiff(image: TiffImageFile, data: bytes, max_pixels: int) -> None:
    """Check that the strips or tiles of a TIFF hold about as much as its pixels."""
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_HEIGHT]
    across, down = tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)
    if isinstance(across, int) and isinstance(down, int) and across > 0 and down > 0:
        tiled = -(-width // across) * across * -(-height // down) * down
        if tiled > max_pixels:
            raise RejectedSampleError(
                "image-bomb",
                f"the TIFF's tiles of {across}×{down} claim {tiled:,} pixels, more than the limit "
                f"of {max_pixels:,}",
            )
    if not image.tile or image.tile[0][0] != "raw":
        return  # libtiff reads no more strips than it needs.
    bands = len(image.getbands())
    bits = tags.get(_BITS, (1,))[0] * min(bands, tags.get(_SAMPLES, 1))
    if 8 * len(data) < width * height * bits:
        raise RejectedSampleError(
            "truncated-image",
            f"the TIFF has {len(data)} bytes, too few for {width}×{height} pixels of {bits} bits",
        )
    boxes = [box for _, box, *_ in image.tile if box]
    area = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if area > 2 * bands * width * height:
        raise RejectedSampleError(
            "image-bomb",
            f"the TIFF's {len(boxes):,} strips or tiles hold its {width}×{height} pixels "
            f"{area // (width * height):,} times",
        )


def _check_webp_header(data: bytes, max_pixels: int) -> None:
    """Check a WebP before Pillow sees it: older Pillows allocate the canvas while opening.

    Layout: RIFF header (12 bytes), chunk name (4), chunk size (4), then per kind of chunk
    (developers.google.com/speed/webp/docs/riff_container).
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
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


def _check_tiff_header(data: bytes) -> None:
    """Check a TIFF's directory before anyone tells of each of its entries.

    Layout: byte order (2 bytes), version (2), offset of the directory (4), which begins with the
    number of its entries (2). A BigTIFF has 4 bytes more before an offset and a number of 8.
    """
    order: Literal["little", "big"] = "big" if data[:2] == b"MM" else "little"
    if data[:4] in (b"II*\0", b"MM\0*"):
        at, length = int.from_bytes(data[4:8], order), 2
    elif data[:4] in (b"II+\0", b"MM\0+"):
        at, length = int.from_bytes(data[8:16], order), 8
    else:
        return
    entries = int.from_bytes(data[at : at + length], order)
    if entries > MAX_TIFF_ENTRIES:
        raise RejectedSampleError(
            "undecodable-image",
            f"the TIFF's directory claims {entries:,} entries; {MAX_TIFF_ENTRIES} are allowed",
        )


def _broken(error: Exception, what: str) -> RejectedSampleError:
    """Tell a file that ends too early from one that is damaged otherwise, by Pillow's words."""
    words = str(error).lower()
    early = isinstance(error, EOFError) or "truncated" in words or "unexpected end" in words
    reason = "truncated-image" if early else "undecodable-image"
    # Pillow names the in-memory file by its address, which would differ from run to run.
    said = type(error).__name__ if not words or "bytesio object" in words else str(error)
    return RejectedSampleError(reason, f"the image {what}: {said}")
