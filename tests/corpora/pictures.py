"""Small real pictures in every format and flavour that raysae opens, as encoded files.

Pillow writes most of them; what it reads but cannot write (interlaced PNG, run-length-coded BMP,
tiled TIFF, ASCII PPM, …) is put together.
"""

from __future__ import annotations

import struct
import zlib
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

from raysae.corpora.builtin import builtin_directory
from tests.corpora.image_files import bmp, png, tiff, tiff_tags

SIZE = (40, 28)

_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""x, y, step in x, step in y of an interlaced PNG's seven passes."""

_XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def pictures() -> dict[str, bytes]:
    """Return the files by name, which begins with the format: `png-palette`, `tiff-tiled`, …"""
    return dict(_pictures())


@cache
def _pictures() -> dict[str, bytes]:
    formats = (_pngs, _jpegs, _webps, _gifs, _bmps, _tiffs, _ppms)
    return {name: data for of_format in formats for name, data in of_format().items()}


def _photos() -> tuple[Image.Image, ...]:
    """Three of the built-in corpus' images, small; anew, since saving leaves options in them."""
    photos = []
    for path in sorted(builtin_directory("builtin").glob("*.parquet"))[:3]:
        encoded = pq.read_table(path, columns=["image"])["image"][1].as_py()["bytes"]
        photos.append(Image.open(BytesIO(encoded)).convert("RGB").resize(SIZE))
    return tuple(photos)


def _save(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def _with_alpha() -> Image.Image:
    image = _photos()[0].copy()
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    return image


def _deep() -> npt.NDArray[np.uint16]:
    """Return a picture of 16 bits per sample, (height, width, 3)."""
    return np.asarray(_photos()[1], np.uint16) * 257


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    exif[0x010F] = "a maker of cameras"
    exif[0x011A] = 72.0
    exif.get_ifd(0x8769)[0x9286] = b"a comment of the user's"
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def _interlaced_png(pixels: npt.NDArray[Any], color: int) -> bytes:
    height, width = pixels.shape[:2]
    lines = []
    for x, y, step_x, step_y in _ADAM7:
        lines += [b"\0" + line.tobytes() for line in pixels[y::step_y, x::step_x]]
    depth = 8 * pixels.dtype.itemsize
    idat = zlib.compress(b"".join(lines))
    return png((width, height), depth, color, idat, interlaced=True)


def _pngs() -> dict[str, bytes]:
    photo, second, third = _photos()
    rgba = _with_alpha()
    palette = photo.quantize(16)
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a picture")
    text.add_text("Comment", "much to say " * 40, zip=True)
    text.add_itxt("XML:com.adobe.xmp", _XMP, zip=True)
    text.add(b"gAMA", struct.pack(">I", 45455))
    text.add(b"cHRM", struct.pack(">8I", *range(8)))
    text.add(b"sRGB", b"\1")
    text.add_text("Author", "stands behind the pixels")
    deep = _deep().astype(">u2")
    deep_rows = b"".join(b"\0" + row.tobytes() for row in deep)
    return {
        "png-rgb": _save(photo, "PNG"),
        "png-rgba": _save(rgba, "PNG"),
        "png-grey": _save(photo.convert("L"), "PNG"),
        "png-grey-alpha": _save(rgba.convert("LA"), "PNG"),
        "png-grey-16": _save(Image.fromarray(_deep()[:, :, 0]), "PNG"),
        "png-rgb-16": png(SIZE, 16, 2, zlib.compress(deep_rows)),
        "png-1": _save(photo.convert("1"), "PNG"),
        "png-palette": _save(palette, "PNG", transparency=bytes(range(16)), bits=4),
        "png-palette-2": _save(photo.quantize(4), "PNG", transparency=1, bits=2),
        "png-rgb-transparent": _save(photo, "PNG", transparency=photo.getpixel((0, 0))),
        "png-interlaced": _interlaced_png(np.asarray(rgba), 6),
        "png-interlaced-16": _interlaced_png(deep, 2),
        "png-metadata": _save(
            photo, "PNG", pnginfo=text, exif=_exif(), icc_profile=b"icc " * 90, dpi=(72, 72)
        ),
        "png-animated": _save(photo, "PNG", save_all=True, append_images=[second, third]),
    }


def _jpegs() -> dict[str, bytes]:
    photo, second, third = _photos()
    cmyk = _save(photo.convert("CMYK"), "JPEG")
    adobe = cmyk.index(b"Adobe") + 11
    camera = _save(photo, "JPEG", exif=_exif(), icc_profile=b"icc " * 90, xmp=_XMP, comment=b"!")
    photoshop = b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16)
    segment = b"\xff\xed" + struct.pack(">H", len(photoshop) + 2) + photoshop
    return {
        "jpeg-baseline": _save(photo, "JPEG"),
        "jpeg-444": _save(second, "JPEG", subsampling=0, quality=95),
        "jpeg-progressive": _save(photo, "JPEG", progressive=True),
        "jpeg-progressive-cmyk": _save(photo.convert("CMYK"), "JPEG", progressive=True),
        "jpeg-grey": _save(photo.convert("L"), "JPEG", optimize=True),
        "jpeg-cmyk": cmyk,
        "jpeg-ycck": cmyk[:adobe] + b"\2" + cmyk[adobe + 1 :],
        "jpeg-rgb": _save(photo, "JPEG", keep_rgb=True),
        "jpeg-restarts": _save(photo, "JPEG", restart_marker_blocks=1),
        "jpeg-camera": camera[:2] + segment + camera[2:],
        "jpeg-mpo": _save(photo, "MPO", save_all=True, append_images=[second, third]),
    }


def _webps() -> dict[str, bytes]:
    photo, second, third = _photos()
    rgba = _with_alpha()
    metadata = {"exif": _exif(), "icc_profile": b"icc " * 90, "xmp": _XMP}
    return {
        "webp-lossy": _save(photo, "WEBP"),
        "webp-lossy-alpha": _save(rgba, "WEBP", alpha_quality=50),
        "webp-lossless": _save(photo, "WEBP", lossless=True),
        "webp-lossless-alpha": _save(rgba, "WEBP", lossless=True),
        "webp-palette": _save(photo.quantize(8).convert("RGB"), "WEBP", lossless=True),
        "webp-animated": _save(photo, "WEBP", save_all=True, append_images=[second, third]),
        "webp-metadata": _save(photo, "WEBP", **metadata),
    }


def _gifs() -> dict[str, bytes]:
    photo, second, third = _photos()
    grey = photo.convert("L")
    palette = photo.quantize(16)
    frames = [second.quantize(64), third.quantize(32)]
    return {
        "gif-palette": _save(palette, "GIF", interlace=0),
        "gif-interlaced": _save(photo.quantize(200), "GIF", interlace=1),
        "gif-transparent": _save(palette, "GIF", transparency=3, comment=b"a comment"),
        "gif-grey": _save(grey, "GIF"),
        "gif-animated": _save(
            palette, "GIF", save_all=True, append_images=frames, loop=0, duration=40, disposal=2
        ),
    }


def _runs_of_8(rows: npt.NDArray[np.uint8]) -> bytes:
    """Code runs, and now and then some bytes as they are, an end of line after each row."""
    coded = b""
    for row in rows:
        coded += b"\0\4" + row[:4].tobytes()
        coded += b"".join(bytes([1, value]) for value in row[4:]) + b"\0\0"
    return coded + b"\0\2\3\0" + b"\0\1"


def _runs_of_4(rows: npt.NDArray[np.uint8]) -> bytes:
    coded = b""
    for row in rows:
        pairs = zip(row[::2], row[1::2], strict=True)
        coded += b"".join(bytes([2, int(a) << 4 | int(b)]) for a, b in pairs) + b"\0\0"
    return coded + b"\0\1"


def _bmps() -> dict[str, bytes]:
    photo, _, _ = _photos()
    width, height = SIZE
    palette = photo.quantize(16)
    colors = np.asarray(palette.getpalette()[: 16 * 3], np.uint8).reshape(16, 3)
    between = b"".join(bytes([*color[::-1], 0]) for color in colors)
    upwards = np.asarray(palette)[::-1]
    of_4 = (upwards[:, ::2] << 4 | upwards[:, 1::2]).tobytes()
    red, green, blue = (np.asarray(photo, np.uint16)[::-1, :, c] for c in range(3))
    of_16 = (red >> 3 << 11 | green >> 2 << 5 | blue >> 3).astype("<u2").tobytes()
    bgrx = np.asarray(photo.convert("RGBA"))[:, :, [2, 1, 0, 3]].tobytes()
    core = struct.pack("<IHHHH", 12, width, height, 1, 24)
    rows = np.asarray(photo)[::-1, :, ::-1].tobytes()
    full = between + bytes(4 * 240)
    return {
        "bmp-1": _save(photo.convert("1"), "BMP"),
        "bmp-4": bmp(SIZE, 4, of_4, between=between),
        "bmp-8": _save(palette, "BMP"),
        "bmp-16": bmp(SIZE, 16, of_16, coding=3, between=struct.pack("<3I", 0xF800, 0x7E0, 0x1F)),
        "bmp-24": _save(photo, "BMP"),
        "bmp-32": _save(_with_alpha(), "BMP"),
        "bmp-top-down": bmp((width, -height), 32, bgrx),
        "bmp-core": b"BM" + struct.pack("<IHHI", 0, 0, 0, 26) + core + rows,
        "bmp-runs-of-8": bmp(SIZE, 8, _runs_of_8(upwards), coding=1, between=full),
        "bmp-runs-of-4": bmp(SIZE, 4, _runs_of_4(upwards), coding=2, between=between),
    }


def _tiled_tiff(coding: int, order: str) -> bytes:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[: SIZE[1], : SIZE[0]] = np.asarray(_photos()[2])
    tiles = [
        pixels[y : y + 16, x : x + 16].tobytes() for y in range(0, 32, 16) for x in range(0, 48, 16)
    ]
    if coding == 8:
        tiles = [zlib.compress(tile) for tile in tiles]
    tags = tiff_tags(SIZE, (8, 8, 8), coding=coding, meaning=2)
    return tiff({**tags, 322: (3, [16]), 323: (3, [16])}, tiles, tiled=True, order=order)


def _planar_tiff() -> bytes:
    pixels = np.asarray(_photos()[2])
    strips = [
        pixels[y : y + 10, :, band].tobytes() for band in range(3) for y in range(0, SIZE[1], 10)
    ]
    tags = tiff_tags(SIZE, (8, 8, 8), meaning=2)
    return tiff({**tags, 278: (3, [10]), 284: (3, [2])}, strips)


def _tiffs() -> dict[str, bytes]:
    photo, second, third = _photos()
    grey = photo.convert("L")
    deep = _deep().astype("<u2")
    by_coding = {
        "none": "raw",
        "lzw": "tiff_lzw",
        "deflate": "tiff_adobe_deflate",
        "packbits": "packbits",
        "jpeg": "jpeg",
        "lzma": "lzma",
        "zstd": "zstd",
    }
    coded = {f"tiff-{name}": _save(photo, "TIFF", compression=c) for name, c in by_coding.items()}
    ycbcr = np.asarray(photo.convert("YCbCr")).tobytes()
    ycbcr_tags = tiff_tags(SIZE, (8, 8, 8), coding=8, meaning=6)
    return {
        **coded,
        "tiff-fax": _save(photo.convert("1"), "TIFF", compression="group4"),
        "tiff-palette": _save(photo.quantize(16), "TIFF", compression="tiff_lzw"),
        "tiff-rgba": _save(_with_alpha(), "TIFF", compression="tiff_adobe_deflate"),
        "tiff-cmyk": _save(photo.convert("CMYK"), "TIFF"),
        "tiff-grey-16": _save(Image.fromarray(_deep()[:, :, 0]), "TIFF"),
        "tiff-rgb-16": tiff(tiff_tags(SIZE, (16,) * 3, meaning=2), [deep.tobytes()]),
        "tiff-integer": _save(Image.fromarray(_deep()[:, :, 0].astype(np.int32)), "TIFF"),
        "tiff-float": _save(grey.convert("F"), "TIFF", compression="tiff_lzw"),
        "tiff-lying": _save(photo, "TIFF", compression="tiff_lzw", tiffinfo={274: 6}),
        "tiff-pages": _save(photo, "TIFF", save_all=True, append_images=[second, third]),
        "tiff-big": _save(photo, "TIFF", big_tiff=True),
        "tiff-ycbcr": tiff({**ycbcr_tags, 530: (3, [1, 1])}, [zlib.compress(ycbcr)]),
        "tiff-planar": _planar_tiff(),
        "tiff-tiled": _tiled_tiff(1, "<"),
        "tiff-tiled-deflate": _tiled_tiff(8, ">"),
    }


def _ppms() -> dict[str, bytes]:
    photo, _, _ = _photos()
    grey = photo.convert("L")
    size = b"%d %d" % SIZE
    bits = b" ".join(b"%d" % (value < 128) for value in grey.tobytes())
    greys = b" ".join(b"%d" % value for value in grey.tobytes())
    colors = b"\n".join(b"%d" % value for value in photo.tobytes())
    deep = _deep().astype(">u2")
    return {
        "ppm-ascii-bits": b"P1\n# bits\n" + size + b"\n" + bits,
        "ppm-ascii-grey": b"P2\n" + size + b"\n255\n# greys\n" + greys + b"\n",
        "ppm-ascii-rgb": b"P3 " + size + b" 255\n" + colors + b"\n",
        "ppm-ascii-deep": b"P2\n" + size + b"\n4000\n" + greys,
        "ppm-bits": _save(photo.convert("1"), "PPM"),
        "ppm-grey": _save(grey, "PPM"),
        "ppm-rgb": _save(photo, "PPM"),
        "ppm-rgb-odd": b"P6 " + size + b" 200\n" + photo.tobytes(),
        "ppm-grey-16": b"P5 " + size + b" 65535\n" + deep[:, :, 0].tobytes(),
        "ppm-rgb-16": b"P6 " + size + b" 65535\n" + deep.tobytes(),
        "ppm-float": _save(grey.convert("F"), "PPM"),
        "ppm-cmyk": b"P0CMYK " + size + b" 255\n" + photo.convert("CMYK").tobytes(),
    }
