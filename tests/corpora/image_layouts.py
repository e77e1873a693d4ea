"""Where the parts of an intact image file begin, and where its numbers stand."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

Order = Literal["little", "big", "text"]

_JPEG_BARE = frozenset({0xD8, 0xD9, *range(0xD0, 0xD8)})
"""Markers without a length."""

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

_SCAN_END = re.compile(rb"\xff[^\0\xd0-\xd7]")

_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 11: 4, 12: 8, 13: 4, 16: 8}
"""TIFF's number of a type → its size."""


class Number(NamedTuple):
    """A number that a file contains: a size, a length, an offset, a kind."""

    at: int
    length: int
    order: Order


class Layout(NamedTuple):
    """What a mutation should hit.

    Attributes:
        cuts: Where parts begin, ascending; chunks, segments, blocks, directories, lines.
        numbers: In no order.
    """

    cuts: tuple[int, ...]
    numbers: tuple[Number, ...]


def layout(data: bytes) -> Layout:
    """Return the layout of an intact file of one of raysae's formats."""
    cuts: set[int] = {0}
    numbers: list[Number] = []
    walk = next(walk for start, walk in _WALKS.items() if data.startswith(start))
    for found in walk(data):
        if isinstance(found, Number):
            numbers.append(found)
        else:
            cuts.add(found)
    return Layout(
        tuple(sorted(cut for cut in cuts if cut < len(data))),
        tuple(number for number in numbers if number.at + number.length <= len(data)),
    )


def _run(at: int, lengths: Iterable[int], order: Order) -> Iterator[Number]:
    """Yield numbers that stand one behind the other."""
    for length in lengths:
        yield Number(at, length, order)
        at += length


def _png(data: bytes) -> Iterator[int | Number]:
    at = 8
    while at < len(data):
        yield at
        yield Number(at, 4, "big")
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], at + 8
        if kind == b"IHDR":
            yield from _run(body, (4, 4, 1, 1, 1, 1, 1), "big")
        elif kind == b"acTL":
            yield from _run(body, (4, 4), "big")
        elif kind == b"fcTL":
            yield from _run(body, (4, 4, 4, 4, 4, 2, 2, 1, 1), "big")
        elif kind == b"fdAT":
            yield Number(body, 4, "big")
        elif kind == b"eXIf":
            yield from _tiff(data, body)
        at = body + length + 4


def _jpeg(data: bytes) -> Iterator[int | Number]:
    at = 0
    while 0 <= at < len(data) - 3:
        if data[at] != 0xFF:
            return
        yield at
        yield Number(at + 1, 1, "big")
        marker, body = data[at + 1], at + 4
        if marker in _JPEG_BARE:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : body], "big")
        yield Number(at + 2, 2, "big")
        yield from _jpeg_segment(data, marker, body, length)
        at += 2 + length
        if marker == 0xDA:
            end = _SCAN_END.search(data, at)
            at = end.start() if end else len(data)


def _jpeg_segment(data: bytes, marker: int, body: int, length: int) -> Iterator[int | Number]:
    if marker in _JPEG_FRAMES:
        yield from _run(body, (1, 2, 2, *[1] * (length - 7)), "big")
    elif marker in (0xDA, 0xDD):
        yield from _run(body, [1] * (length - 2), "big")
    elif marker == 0xC4:
        yield from _run(body, [1] * 17, "big")
    elif marker == 0xDB:
        yield Number(body, 1, "big")
    elif data.startswith(b"Exif\0\0", body):
        yield from _tiff(data, body + 6)
    elif data.startswith(b"MPF\0", body):
        yield from _tiff(data, body + 4)


def _webp(data: bytes) -> Iterator[int | Number]:
    yield Number(4, 4, "little")
    yield from _riff_chunks(data, 12)


def _riff_chunks(data: bytes, at: int) -> Iterator[int | Number]:
    while at + 8 <= len(data):
        yield at
        yield Number(at + 4, 4, "little")
        kind, body = data[at : at + 4], at + 8
        length = int.from_bytes(data[at + 4 : body], "little")
        if kind == b"VP8X":
            yield from _run(body, (4, 3, 3), "little")
        elif kind == b"ANIM":
            yield from _run(body, (4, 2), "little")
        elif kind == b"ANMF":
            yield from _run(body, (3, 3, 3, 3, 3, 1), "little")
            yield from _riff_chunks(data[: body + length], body + 16)
        elif kind == b"VP8 ":
            yield from _run(body, (3, 3, 2, 2), "little")
        elif kind == b"VP8L":
            yield from _run(body, (1, 4), "little")
        elif kind == b"EXIF":
            yield from _tiff(data, body)
        at = body + length + length % 2


def _gif(data: bytes) -> Iterator[int | Number]:
    yield from _run(6, (2, 2, 1, 1, 1), "little")
    at = 13 + _gif_colors(data[10])
    while at < len(data) and data[at] != 0x3B:
        yield at
        if data[at] == 0x21:
            if data[at + 1] == 0xF9:
                yield from _run(at + 3, (1, 2, 1), "little")
            at += 2
        else:
            yield from _run(at + 1, (2, 2, 2, 2, 1), "little")
            at += 10 + _gif_colors(data[at + 9])
            yield Number(at, 1, "little")
            at += 1
        while data[at]:
            yield Number(at, 1, "little")
            at += 1 + data[at]
        at += 1
    yield at


def _gif_colors(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: bytes) -> Iterator[int | Number]:
    header, offset = struct.unpack_from("<I", data, 14)[0], struct.unpack_from("<I", data, 10)[0]
    yield from (14, 14 + header, offset)
    yield from _run(2, (4, 2, 2, 4, 4), "little")
    if header == 12:
        yield from _run(18, (2, 2, 2, 2), "little")
    else:
        yield from _run(18, (4, 4, 2, 2, 4, 4, 4, 4, 4, 4, 4, 4, 4), "little")


def _tiff(data: bytes, start: int = 0) -> Iterator[int | Number]:
    """Walk directories whose offsets count from `start`; one in an EXIF chunk has others."""
    start += 6 if data.startswith(b"Exif\0\0", start) else 0
    order: Order = "little" if data.startswith(b"II", start) else "big"
    big = 43 in data[start + 2 : start + 4]
    word, count_bytes, entry_bytes = (8, 8, 20) if big else (4, 2, 12)

    def number(at: int, length: int) -> int:
        return int.from_bytes(data[at : at + length], order)

    at, seen = start + (8 if big else 4), {start}
    yield Number(at, word, order)
    directories = [start + number(at, word)]
    while directories:
        at = directories.pop()
        if at in seen or at + count_bytes > len(data):
            continue
        seen.add(at)
        yield at
        yield Number(at, count_bytes, order)
        entries = number(at, count_bytes)
        at += count_bytes
        for _ in range(entries):
            yield from _run(at, (2, 2, word, word), order)
            tag, kind, count = number(at, 2), number(at + 2, 2), number(at + 4, word)
            value = at + 4 + word
            if tag in (0x8769, 0x8825):
                directories.append(start + number(value, word))
            if _TIFF_BYTES.get(kind, 1) * count > word:
                value = start + number(value, word)
                yield value
                length = min(_TIFF_BYTES.get(kind, 1), 4)
                yield from _run(value, [length] * min(count, 4), order)
            if tag in (273, 324):  # strips and tiles
                yield start + number(value, min(_TIFF_BYTES.get(kind, 4), word))
            at += entry_bytes
        yield Number(at, word, order)
        directories.append(start + number(at, word))


def _ppm(data: bytes) -> Iterator[int | Number]:
    numbers = 2 if data[:2] in (b"P1", b"P4") else 3
    header = re.match(rb"\w+\s+(?:#.*\n)?" + rb"([-.\d]+)\s" * numbers, data)
    assert header is not None
    for group in range(1, numbers + 1):
        at, end = header.span(group)
        yield at
        yield Number(at, end - at, "text")
    yield header.end()


_WALKS = {
    b"\x89PNG": _png,
    b"\xff\xd8": _jpeg,
    b"RIFF": _webp,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"II": _tiff,
    b"MM": _tiff,
    b"P": _ppm,
}
