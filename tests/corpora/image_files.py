"""PNG, BMP and TIFF files put together from their parts, right or wrong."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

PNG_START = b"\x89PNG\r\n\x1a\n"

_TIFF_LETTERS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "Q", 7: "B", 11: "f", 12: "d"}
"""TIFF's number of a type → `struct`'s letter."""


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    size: tuple[int, int],
    depth: int,
    color: int,
    idat: bytes,
    *,
    interlaced: bool = False,
    chunks: bytes = b"",
) -> bytes:
    """Return a PNG of deflated scanlines, with chunks that stand before them."""
    header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, interlaced)
    return (
        PNG_START
        + png_chunk(b"IHDR", header)
        + chunks
        + png_chunk(b"IDAT", idat)
        + png_chunk(b"IEND", b"")
    )


def bmp(
    size: tuple[int, int], bits: int, body: bytes, *, coding: int = 0, between: bytes = b""
) -> bytes:
    """Return a BMP; a negative height is stored top down.

    Args:
        size: (width, height).
        bits: Per pixel.
        body: The pixels, as stored.
        coding: 0 none, 1 run lengths of 8 bits, 2 of 4 bits, 3 bit fields.
        between: Palette or masks.
    """
    offset = 14 + 40 + len(between)
    width, height = size
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, coding, len(body), 2835, 2835, 0, 0
    )
    start = b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset)
    return start + header + between + body


def tiff(
    tags: dict[int, tuple[int, Sequence[int] | bytes]],
    blocks: Sequence[bytes],
    *,
    tiled: bool = False,
    order: str = "<",
    following: int = 0,
) -> bytes:
    """Return a TIFF of one directory.

    Args:
        tags: Tag → (TIFF's number of its type, values or their bytes).
        blocks: The strips or tiles.
        tiled: Which of them they are.
        order: `<` or `>`.
        following: Offset of the directory that follows this one.
    """
    offsets, counts = (324, 325) if tiled else (273, 279)
    tags = {
        **tags,
        offsets: (4, [0] * len(blocks)),
        counts: (4, [len(block) for block in blocks]),
    }
    values = {
        tag: data
        if isinstance(data, bytes)
        else struct.pack(f"{order}{len(data)}{_TIFF_LETTERS[kind]}", *data)
        for tag, (kind, data) in tags.items()
    }
    start = 8 + 2 + 12 * len(tags) + 4
    after = start + sum(len(value) for value in values.values() if len(value) > 4)
    places = [after + sum(map(len, blocks[:at])) for at in range(len(blocks))]
    values[offsets] = struct.pack(f"{order}{len(places)}I", *places)
    entries, aside = b"", b""
    for tag in sorted(tags):
        kind, value = tags[tag][0], values[tag]
        count = len(value) // struct.calcsize(_TIFF_LETTERS[kind])
        entries += struct.pack(f"{order}HHI", tag, kind, count)
        if len(value) > 4:
            entries += struct.pack(f"{order}I", start + len(aside))
            aside += value
        else:
            entries += value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", following)
    return head + directory + aside + b"".join(blocks)


def tiff_tags(
    size: tuple[int, int], bits: Sequence[int] = (8,), *, coding: int = 1, meaning: int = 1
) -> dict[int, tuple[int, Sequence[int] | bytes]]:
    """Return the tags that every TIFF needs.

    Args:
        size: (width, height).
        bits: Per sample.
        coding: 1 none, 8 deflate, …
        meaning: 1 greyscale, 2 RGB, 6 YCbCr, …
    """
    return {
        256: (4, [size[0]]),
        257: (4, [size[1]]),
        258: (3, bits),
        259: (3, [coding]),
        262: (3, [meaning]),
        277: (3, [len(bits)]),
    }
