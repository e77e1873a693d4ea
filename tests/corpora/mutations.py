"""Damaged images without end: mutation number n of a seed is the same bytes in every run.

Each starts from one of `pictures`, or now and then of `bombs`, and is damaged in one to three ways:
blindly (bits, bytes, cuts) or where its format hurts (lengths, sizes, offsets, the order of parts).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from tests.corpora.bombs import bombs
from tests.corpora.image_files import PNG_START, png_chunk
from tests.corpora.image_layouts import Layout, layout
from tests.corpora.pictures import pictures

BOMB_SHARE = 1 / 100
"""Of all mutations; a bomb takes a hundred times as long as a picture."""

_SIZES = (1 << 10, 8191, 8192, 8193, 16383, 65500, 1 << 26)
"""Sides and areas near one of the limits."""

_RUNS = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xd8",
    b"\xff\xda",
)
_RUNS = (
    *_RUNS,
    b"\xff\xd9",
    b"IDAT",
    b"IEND",
    b"ANMF",
    b"2147483647",
    b"-1",
    b"#",
    b"\x7f\xff\xff\xff",
)

_MOST = 1 << 22
"""Bytes that a mutation may grow to."""


class Mutation(NamedTuple):
    """A damaged image.

    Attributes:
        name: What it was, and what was done to it.
        data: The file.
    """

    name: str
    data: bytes


class _Draft(NamedTuple):
    """An intact file about to be damaged."""

    data: bytes
    layout: Layout


_Damage = Callable[[random.Random, _Draft], bytes]


def mutation(seed: int, number: int) -> Mutation:
    """Return a damaged image.

    Args:
        seed: Chooses a run of mutations.
        number: Chooses one of it; those before it are not needed.
    """
    rng = random.Random(f"{seed} {number}")
    if rng.random() < BOMB_SHARE:
        name = rng.choice(sorted(bombs()))
        data = bombs()[name]()
        if rng.random() < 0.5:
            return Mutation(name, data)
        return Mutation(f"{name}, flip", _flip(rng, _Draft(data, Layout((0,), ()))))
    name = rng.choice(sorted(pictures()))
    draft = _draft(name)
    done = [name]
    # The layout is the intact file's: what changes lengths comes last but for blind damage.
    ways = rng.sample(_IN_PLACE, rng.choice((0, 1, 1, 2))) + rng.sample(
        _ANYWHERE, rng.choice((0, 1))
    )
    for damage in ways or [_flip]:
        draft = draft._replace(data=damage(rng, draft)[:_MOST])
        done.append(damage.__name__.strip("_"))
    data = draft.data
    if data.startswith(PNG_START) and rng.random() < 0.9:
        data = _with_checksums(data)
        done.append("checksums")
    return Mutation(", ".join(done), data)


@cache
def _draft(name: str) -> _Draft:
    data = pictures()[name]
    return _Draft(data, layout(data))


def _place(rng: random.Random, data: bytes | bytearray) -> int:
    """Choose a place; often in the header, where a hit does the most harm, seldom in the magic."""
    start = rng.choice((0, 4, 12, 12))
    end = rng.choice((64, len(data), len(data)))
    return min(rng.randrange(start, max(end, start + 1)), len(data))


def _flip(rng: random.Random, draft: _Draft) -> bytes:
    """Flip one to four bits, now and then a twentieth of all."""
    damaged = bytearray(draft.data)
    flips = len(damaged) // 20 if rng.random() < 0.05 else rng.choice((1, 1, 2, 4))
    for _ in range(min(flips, 2000)):
        damaged[_place(rng, damaged) % len(damaged)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _overwrite(rng: random.Random, draft: _Draft) -> bytes:
    data = draft.data
    for _ in range(rng.choice((1, 1, 3))):
        at = _place(rng, data)
        run = rng.choice(_RUNS) * rng.choice((1, 1, 1, 1, 30))
        data = data[:at] + run[: len(data) - at] + data[at + len(run) :]
    return data


def _numbers(rng: random.Random, draft: _Draft) -> bytes:
    """Set one or two numbers to what a decoder may trip over."""
    data = draft.data
    if not draft.layout.numbers:
        return _overwrite(rng, draft)
    chosen = [rng.choice(draft.layout.numbers) for _ in range(rng.choice((1, 1, 1, 2)))]
    # From behind, since numbers in decimal may change their length.
    for at, length, order in sorted(set(chosen), reverse=True):
        if order == "text":
            value = rng.choice((*_SIZES, 0, 1, -1, 255, 256, 65535, 65536, 1 << 31, 10**10, 10**11))
            data = data[:at] + b"%d" % value + data[at + length :]
            continue
        most = (1 << 8 * length) - 1
        old = int.from_bytes(data[at : at + length], order)
        near = rng.choice((old - 1, old + 1, old * 2, old // 2, old ^ 1 << rng.randrange(16)))
        ends = rng.choice((0, 1, 2, 4, 8, most, most - 1, most // 2, most // 2 + 1, len(data)))
        value = rng.choice((near, near, ends, rng.choice(_SIZES), rng.randint(0, most)))
        data = data[:at] + (value & most).to_bytes(length, order) + data[at + length :]
    return data


def _parts(rng: random.Random, draft: _Draft) -> bytes:
    """Shuffle, repeat, drop or move parts, or take one from another picture."""
    parts = _cut(draft)
    at, to = rng.randrange(len(parts)), rng.randrange(len(parts))
    way = rng.randrange(5)
    if way == 0:
        few = parts[at : at + rng.choice((2, 3, 99))]
        rng.shuffle(few)
        parts[at : at + len(few)] = few
    elif way == 1:
        parts[to:to] = [parts[at]] * rng.choice((1, 1, 2, 50, 500))
    elif way == 2:
        del parts[at]
    elif way == 3:
        parts.insert(to, parts.pop(at))
    else:
        parts[at:at] = [rng.choice(_cut(_draft(rng.choice(sorted(pictures())))))]
    return b"".join(parts)


def _cut(draft: _Draft) -> list[bytes]:
    cuts = [*draft.layout.cuts, len(draft.data)]
    return [draft.data[a:b] for a, b in pairwise(cuts)]


def _truncate(rng: random.Random, draft: _Draft) -> bytes:
    return draft.data[: rng.randrange(len(draft.data) + 1)]


def _insert(rng: random.Random, draft: _Draft) -> bytes:
    at = _place(rng, draft.data)
    run = rng.choice(
        (rng.randbytes(rng.randint(1, 9)), rng.choice(_RUNS) * rng.choice((1, 99, 9999)))
    )
    return draft.data[:at] + run + draft.data[at:]


def _delete(rng: random.Random, draft: _Draft) -> bytes:
    at = _place(rng, draft.data)
    return draft.data[:at] + draft.data[at + rng.choice((1, 2, 4, 12, 100, 1000)) :]


def _repeat(rng: random.Random, draft: _Draft) -> bytes:
    """Repeat some bytes where they stand or elsewhere."""
    start, to = _place(rng, draft.data), _place(rng, draft.data)
    piece = draft.data[start : start + rng.choice((1, 4, 12, 200))] * rng.choice((1, 2, 100))
    return draft.data[:to] + piece + draft.data[to:]


def _splice(rng: random.Random, draft: _Draft) -> bytes:
    """Go on as another picture."""
    other = _draft(rng.choice(sorted(pictures())))
    at = rng.choice((rng.randrange(len(draft.data) + 1), rng.choice(draft.layout.cuts)))
    start = rng.choice((rng.randrange(len(other.data)), rng.choice(other.layout.cuts)))
    return draft.data[:at] + other.data[start:]


def _reinflated(rng: random.Random, draft: _Draft) -> bytes:
    """Damage a PNG's scanlines behind the compression, which would find any other damage."""
    parts = _cut(draft)
    pixels = [at for at, part in enumerate(parts) if part[4:8] == b"IDAT"]
    try:
        lines = zlib.decompress(parts[pixels[0]][8:-4])
    except (IndexError, zlib.error):  # no PNG, or damaged before
        return _flip(rng, draft)
    way = rng.choice((_flip, _overwrite, _insert, _delete, _repeat))
    damaged = zlib.compress(way(rng, _Draft(lines, Layout((0,), ()))))
    parts[pixels[0]] = png_chunk(b"IDAT", damaged)
    return b"".join(parts)


_IN_PLACE: list[_Damage] = [_numbers, _numbers, _overwrite, _flip]
"""Leave the rest where it was: `_numbers` changes a length only in a PPM."""

_ANYWHERE: list[_Damage] = [
    *(_parts, _parts, _truncate, _insert, _delete, _repeat, _splice, _reinflated)
]


def _with_checksums(png: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right, as far as its lengths lead."""
    fixed, at = bytearray(png), len(PNG_START)
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        if end + 4 > len(png):
            break
        fixed[end : end + 4] = zlib.crc32(png[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)
