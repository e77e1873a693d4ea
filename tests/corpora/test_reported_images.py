"""Images that users of published data sets reported trouble with, through both decoders."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from raysae.corpora import check_image
from raysae.errors import RejectedSampleError
from raysae.models.images import decode_image
from tests.corpora.rows import image_bytes, png_claiming

MIB = 2**20


def saved(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def pixel(data: bytes) -> tuple[int, ...]:
    """Return the colour of the first pixel, after both have accepted the image."""
    check_image(data)
    image = decode_image(data)
    assert image.mode == "RGB"
    colour = image.getpixel((0, 0))
    assert isinstance(colour, tuple)
    return colour


def reasons(data: bytes) -> set[str]:
    found = set()
    for decode in (check_image, decode_image):
        with pytest.raises(RejectedSampleError) as caught:
            decode(data)
        assert caught.value.detail
        found.add(caught.value.reason)
    return found


def with_chunk(kind: bytes, data: bytes, *, behind: bool = False) -> bytes:
    """Return a PNG with one more chunk, before its pixels or behind them."""
    png = image_bytes()
    at = png.index(b"IEND" if behind else b"IDAT") - 4
    chunk = struct.pack(">I", len(data)) + kind + data
    return png[:at] + chunk + struct.pack(">I", zlib.crc32(kind + data)) + png[at:]


def with_segment(data: bytes) -> bytes:
    """Return a JPEG with one more APP1 segment, where EXIF and XMP stand."""
    jpeg = image_bytes("JPEG")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + jpeg[2:]


def test_cmyk_jpeg() -> None:
    data = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    assert b"Adobe" in data  # whose programs store the complement, and Pillow does as they do
    red, green, blue = pixel(data)
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(("stored", "seen"), [(0, 0), (40_000, 156), (65_535, 255)])
def test_sixteen_bits(stored: int, seen: int) -> None:
    data = saved(Image.fromarray(np.full((4, 4), stored, np.uint16)))
    assert pixel(data) == (seen, seen, seen)


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (4, 4), (9, 0)), (255, 255, 255)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("P", (1, 1)), (0, 0, 0)),
    ],
)
def test_modes(image: Image.Image, seen: tuple[int, ...]) -> None:
    assert pixel(saved(image)) == seen


def test_hidden_colours_of_a_transparent_palette_do_not_show() -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0])
    assert pixel(saved(image, "GIF", transparency=0)) == (255, 255, 255)


def test_of_an_animation_the_first_frame_is_seen() -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    for format_ in ("GIF", "WEBP", "PNG"):
        data = saved(first, format_, save_all=True, append_images=[second])
        red, _, blue = pixel(data)
        assert (red, blue) > (200, 60)


def test_exif_turns_the_picture_and_check_tells_the_stored_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.new("RGB", (20, 10)), "JPEG", exif=exif)
    assert check_image(data) == (20, 10)
    assert decode_image(data).size == (10, 20)


@pytest.mark.parametrize(
    "segment",
    [
        b"Exif\0\0",
        b"Exif\0\0" + b"\xff" * 40,
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xfe" * 30,
        b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta \xff\xfe\xb2",
        b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>x</tiff:Orientation>",
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_metadata_does_not_cost_the_picture(segment: bytes) -> None:
    data = with_segment(segment)
    assert check_image(data) == (40, 30)
    assert decode_image(data).size == (40, 30)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize(
    ("kind", "head"),
    [(b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0\0\0"), (b"iCCP", b"ICC\0\0")],
)
def test_metadata_that_inflates_too_far(kind: bytes, head: bytes, behind: bool) -> None:
    """Pillow raises ValueError ("Decompressed data too large"), which is no OSError."""
    data = with_chunk(kind, head + zlib.compress(bytes(2 * MIB)), behind=behind)
    assert reasons(data) == {"undecodable-image"}


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_metadata_that_does_not_inflate(kind: bytes) -> None:
    head = b"Comment\0\1\0\0\0" if kind == b"iTXt" else b"Comment\0\0"
    data = with_chunk(kind, head + b"no deflate")
    assert check_image(data) == (40, 30)
    assert decode_image(data).size == (40, 30)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_a_truncated_picture_opens_but_does_not_load(format_: str) -> None:
    data = image_bytes(format_, (200, 200))
    assert reasons(data[: len(data) // 2]) == {"truncated-image"}


@pytest.mark.parametrize(
    "data", [b"<!DOCTYPE html><html>404</html>", b"{}", b"\xff\xd8\xff\xe0", b"x.jpg"]
)
def test_what_a_failed_download_leaves(data: bytes) -> None:
    assert reasons(data) == {"undecodable-image"}


def test_four_hundred_megapixels() -> None:
    assert reasons(png_claiming(20_000, 20_000)) == {"image-bomb"}
