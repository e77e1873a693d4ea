"""Small files that cost a decoder much time or memory, each whole as its format has it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from functools import cache, partial
from io import BytesIO
from typing import Any

from PIL import Image

from tests.corpora.image_files import bmp, png, png_chunk, tiff, tiff_tags
from tests.corpora.image_layouts import layout
from tests.corpora.pictures import pictures

Bomb = Callable[[], bytes]

_BOMBS: dict[str, Bomb] = {}

PILLOW_KEYS = (
    *(b"transparency", b"bbox", b"interlace", b"exif", b"dpi", b"default_image", b"gamma"),
    *(b"icc_profile", b"Raw profile type exif", b"XML:com.adobe.xmp", b"xmp", b"loop"),
)
"""Where Pillow keeps a PNG's properties, and a text chunk may put anything instead."""


def bombs() -> Mapping[str, Bomb]:
    """Return what makes the files, by name."""
    return _BOMBS


def _bomb(make: Bomb) -> Bomb:
    cached = cache(make)
    _BOMBS[make.__name__] = cached
    return cached


def _save(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def zeros(size: int) -> bytes:
    """Return a thousandth of so many bytes, which inflates to them."""
    return zlib.compress(bytes(size), 9)


def _png_with(chunks: bytes) -> bytes:
    return png((8, 8), 8, 2, zlib.compress(bytes(8 * 25)), chunks=chunks)


@_bomb
def png_of_few_bytes() -> bytes:
    return png((1024, 1024), 16, 6, zeros(1024 * (1024 * 8 + 1)))


@_bomb
def png_beyond_its_size() -> bytes:
    return png((64, 64), 8, 2, zeros(1 << 26))


@_bomb
def png_thin() -> bytes:
    """A line of a pixel costs twelve times the pixel."""
    return png((1, 1 << 20), 8, 4, zeros(3 << 20))


@_bomb
def png_texts() -> bytes:
    """All of the text that Pillow allows."""
    text = zlib.compress(b"x" * ((1 << 20) - 1))
    return _png_with(b"".join(png_chunk(b"zTXt", b"%d\0\0" % at + text) for at in range(63)))


@_bomb
def png_wide_texts() -> bytes:
    """All of the text that Pillow allows, at four bytes a character."""
    text = zlib.compress("x".ljust((1 << 20) - 9, "x").encode() + "\U0001f600".encode())
    return _png_with(b"".join(png_chunk(b"iTXt", b"%d\0\1\0\0\0" % at + text) for at in range(63)))


@_bomb
def png_profile() -> bytes:
    return _png_with(png_chunk(b"iCCP", b"x\0\0" + zeros(1 << 26)))


@_bomb
def png_many_chunks() -> bytes:
    return _png_with(png_chunk(b"prVt", b"") * 20_000)


def _png_key(key: bytes) -> bytes:
    return _png_with(png_chunk(b"tEXt", key + b"\0text"))


_BOMBS.update((f"png_key {key.decode()}", partial(_png_key, key)) for key in PILLOW_KEYS)


@_bomb
def png_exif() -> bytes:
    """Entries that all claim the same bytes."""
    entries = b"".join(struct.pack("<HHII", tag, 7, 10_000, 8) for tag in range(300))
    directory = b"II*\0" + struct.pack("<IH", 8, 300) + entries + bytes(10_000)
    return _png_with(png_chunk(b"eXIf", directory))


def _repeated(name: str, part: int, times: int) -> bytes:
    """Return a picture with one of its parts many times."""
    data = pictures()[name]
    cuts = [*layout(data).cuts, len(data)]
    start, end = cuts[part], cuts[part + 1]
    return data[:start] + data[start:end] * times + data[end:]


@_bomb
def jpeg_scans() -> bytes:
    """A progressive JPEG goes over all of its pixels for every scan."""
    return scans(1024, 3000)


def scans(side: int, count: int) -> bytes:
    """Return a progressive JPEG of a square of pixels and many scans of nothing."""
    data = _save(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


@_bomb
def jpeg_padding() -> bytes:
    data = pictures()["jpeg-baseline"]
    return data[:2] + b"\xff" * 200_000 + data[2:]


@_bomb
def jpeg_segments() -> bytes:
    data = pictures()["jpeg-baseline"]
    return data[:2] + b"\xff\xe5\0\2" * 20_000 + data[2:]


@_bomb
def webp_of_few_bytes() -> bytes:
    return _save(Image.new("RGBA", (1024, 1024), (1, 2, 3, 4)), "WEBP", lossless=True)


@_bomb
def webp_frames() -> bytes:
    data = pictures()["webp-animated"]
    first = data.index(b"ANMF")
    end = first + 8 + int.from_bytes(data[first + 4 : first + 8], "little")
    data = data[:first] + data[first:end] * 2000
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


@_bomb
def gif_frames() -> bytes:
    data = _save(Image.new("P", (8, 8)), "GIF")
    frame = data.index(b",")
    return data[:frame] + data[frame:-1] * 10_000 + b";"


@_bomb
def gif_comments() -> bytes:
    data = _save(Image.new("P", (8, 8)), "GIF")
    frame = data.index(b",")
    return data[:frame] + b"!\xfe" + b"\1c" * 50_000 + b"\0" + data[frame:]


@_bomb
def gif_canvas() -> bytes:
    """Pillow fills the canvas while it opens this, up to its own limit."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    control = b"!\xf9\4" + bytes([0b1001, 0, 0, 5, 0])
    return screen + control + b"," + struct.pack("<4HB", 0, 0, 65_535, 2700, 0) + b"\2\2\x44\1\0;"


@_bomb
def bmp_empty_lines() -> bytes:
    """Pillow's decoder for run lengths is written in Python."""
    return empty_lines(1024, 1024)


def empty_lines(width: int, height: int) -> bytes:
    """Return a BMP of run lengths whose lines end after a pixel."""
    palette = bytes(4) + b"\1\2\3\0" * 255
    return bmp((width, height), 8, b"\1\1\0\0" * height + b"\0\1", coding=1, between=palette)


@_bomb
def ppm_comments() -> bytes:
    """Pillow copies what follows, up to a mebibyte, for each comment."""
    return b"P2\n8 8\n255\n" + b"#\n" * 200_000 + b" 1" * 64


@_bomb
def tiff_strips() -> bytes:
    """Strips that hold the same rows again and again."""
    width, height, count = 1024, 1024, 2000
    tags = {**tiff_tags((width, height), (1,)), 278: (4, [height - 1])}
    data = tiff(tags, [b"\0"] * count)
    return data + bytes(width * height // 8)


@_bomb
def tiff_tile() -> bytes:
    """A tile far larger than the picture."""
    tags = {**tiff_tags((24, 24), coding=8), 322: (4, [1 << 13]), 323: (4, [1 << 13])}
    return tiff(tags, [zeros(1 << 26)], tiled=True)


@_bomb
def tiff_loop() -> bytes:
    """A directory that is followed by itself."""
    return tiff({**tiff_tags((8, 8)), 278: (4, [8])}, [bytes(64)], following=8)


@_bomb
def tiff_pages() -> bytes:
    page = tiff({**tiff_tags((8, 8)), 278: (4, [8])}, [bytes(64)])
    directory = len(page)
    link = page.index(b"II*\0") + 8 + 2 + 12 * 8
    pages = [page[:link] + struct.pack("<I", directory) + page[link + 4 :]]
    for at in range(2000):
        following = directory + (link + 4 - 8) * (at + 1)
        pages.append(page[8:link] + struct.pack("<I", following))
    return b"".join(pages)


@_bomb
def tiff_entries() -> bytes:
    """Entries that all claim the same bytes."""
    entries = b"".join(struct.pack("<HHII", tag, 7, 100_000, 8) for tag in range(40_000, 40_500))
    directory = struct.pack("<H", 500) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 100_008) + bytes(100_000) + directory


@_bomb
def tiff_rationals() -> bytes:
    tags = {**tiff_tags((8, 8)), 278: (4, [8]), 282: (5, bytes(8 * 20_000))}
    return tiff(tags, [bytes(64)])
