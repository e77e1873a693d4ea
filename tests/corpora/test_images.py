from __future__ import annotations

import contextlib
import random
import struct
import time
import tracemalloc
import warnings
import zlib
from io import BytesIO

import pytest
from PIL import Image, ImageFile

from raysae.corpora import images
from raysae.corpora.images import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE, check_image
from raysae.errors import RejectedSampleError
from raysae.models.images import decode_image
from raysae.sample import IMAGE_FORMATS
from tests.corpora.bombs import bombs, empty_lines, scans
from tests.corpora.image_files import png, tiff, tiff_tags
from tests.corpora.pictures import pictures
from tests.corpora.rows import image_bytes, png_claiming, webp_claiming

ENCODINGS = {
    "PNG": {},
    "JPEG": {"quality": 90},
    "JPEG-progressive": {"progressive": True},
    "MPO": {},
    "WEBP": {},
    "WEBP-lossless": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "PPM": {},
}


def encoded(name: str) -> bytes:
    return image_bytes(name.split("-", maxsplit=1)[0], **ENCODINGS[name])


def reason(data: bytes) -> str:
    with pytest.raises(RejectedSampleError) as caught:
        check_image(data)
    assert caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("name", ENCODINGS)
def test_whole_images_pass(name: str) -> None:
    assert check_image(encoded(name)) == (40, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_odd_pixel_modes_pass(mode: str) -> None:
    stream = BytesIO()
    format_ = "PNG" if mode not in ("CMYK", "F") else "TIFF"
    Image.new(mode, (9, 7)).save(stream, format_)
    assert check_image(stream.getvalue()) == (9, 7)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_truncated_images_are_rejected(name: str, kept: float) -> None:
    data = encoded(name)
    found = reason(data[: int(len(data) * kept)])
    # A TIFF's directory stands at its end: without it nothing says what was meant.
    allowed = {"truncated-image", "undecodable-image"} if name == "TIFF" else {"truncated-image"}
    assert found in allowed


@pytest.mark.parametrize("claim", [png_claiming, webp_claiming])
def test_bombs_are_rejected_from_the_header(claim) -> None:  # type: ignore[no-untyped-def]
    tracemalloc.start()
    try:
        assert reason(claim(50_000, 50_000)) == "image-bomb"
        assert reason(claim(8193, 8192)) == "image-bomb"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_bomb_with_warnings_as_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(png_claiming(10_000, 10_000)) == "image-bomb"


def test_limit_is_of_pixels() -> None:
    data = image_bytes(size=(40, 30))
    assert check_image(data, max_pixels=1200) == (40, 30)
    with pytest.raises(RejectedSampleError, match="40×30"):
        check_image(data, max_pixels=1199)


def test_limit_lies_below_pillows_own_which_stays_as_it_is() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert MAX_IMAGE_PIXELS < Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "no-image"),
        (b"not an image", "undecodable-image"),
        (b"\x89PNG\r\n\x1a\n", "undecodable-image"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(40), "undecodable-image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "undecodable-image"),
        (b"\xff\xd8\xff", "undecodable-image"),
        (bytes(1000), "undecodable-image"),
    ],
)
def test_no_images_are_rejected(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_formats_that_start_programs_are_closed() -> None:
    assert not {"EPS", "WMF", "MSP", "ICNS", "FITS"} & set(IMAGE_FORMATS)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ENCODINGS)
def test_damage_never_raises_anything_else(name: str) -> None:
    data = encoded(name)
    rng = random.Random(0)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(rng.randrange(1, 6)):
            # Half of the hits go to the header, where they do the most harm.
            end = rng.choice([64, len(damaged)])
            damaged[rng.randrange(min(end, len(damaged)))] = rng.randrange(256)
        with contextlib.suppress(RejectedSampleError):
            check_image(bytes(damaged))


@pytest.mark.parametrize("step", ["open", "load"])
def test_a_machine_without_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    whole = encoded("PNG")
    owner = Image if step == "open" else type(Image.open(BytesIO(whole)))
    monkeypatch.setattr(owner, step, refuse)
    with pytest.raises(MemoryError):
        check_image(whole)
    with pytest.raises(MemoryError):
        decode_image(whole)


def test_details_are_the_same_in_every_run() -> None:
    details = []
    for _ in range(2):
        with pytest.raises(RejectedSampleError) as caught:
            check_image(b"not an image" * 3)
        details.append(caught.value.detail)
    assert details[0] == details[1]
    assert "0x" not in details[0]


@pytest.mark.parametrize("name", pictures())
def test_every_flavour_passes_and_decodes(name: str) -> None:
    data = pictures()[name]
    size = check_image(data)
    assert decode_image(data).size in (size, size[::-1])


BOMBS = {
    "png_thin": "image-bomb",
    "png_profile": "undecodable-image",
    "png_key bbox": "undecodable-image",
    "png_key interlace": "truncated-image",
    "jpeg_scans": "image-bomb",
    "gif_canvas": "image-bomb",
    "ppm_comments": "image-bomb",
    "tiff_strips": "image-bomb",
    "tiff_entries": "undecodable-image",
}
"""The others are decoded: they cost no more than they may."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", bombs())
def test_bombs_cost_little_whether_they_pass_or_not(name: str) -> None:
    data = bombs()[name]()
    start = time.process_time()
    if name in BOMBS:
        assert reason(data) == BOMBS[name]
    else:
        check_image(data)
    assert time.process_time() - start < 3


def test_a_picture_may_be_thin_but_not_longer_than_a_jpeg_can_be() -> None:
    long = png((MAX_IMAGE_SIDE, 1), 8, 0, zlib.compress(bytes(1 + MAX_IMAGE_SIDE)))
    assert check_image(long) == (MAX_IMAGE_SIDE, 1)
    for size in [(MAX_IMAGE_SIDE + 1, 1), (1, MAX_IMAGE_SIDE + 1)]:
        assert reason(png_claiming(*size)) == "image-bomb"


def test_scans_are_counted_times_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_image(scans(16, 3000)) == (16, 16)
    data = scans(16, 4)
    # Scans in a segment, or behind the end, are none of the picture's.
    segment = b"\xff\xe5" + struct.pack(">H", 202) + b"\xff\xda" * 100
    data = data[:2] + segment + b"\xff" + data[2:] + b"\xff\xda" * 100
    total = data.count(b"\xff\xda") - 200
    monkeypatch.setattr(images, "MAX_SCANNED_PIXELS", 16 * 16 * total)
    assert check_image(data) == (16, 16)
    monkeypatch.setattr(images, "MAX_SCANNED_PIXELS", 16 * 16 * total - 1)
    with pytest.raises(RejectedSampleError, match=f"the JPEG has {total} scans"):
        check_image(data)


def test_run_lengths_have_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(empty_lines(4096, 4097)) == "image-bomb"
    monkeypatch.setattr(images, "MAX_RUN_LENGTH_PIXELS", 20)
    assert check_image(empty_lines(5, 4)) == (5, 4)
    assert check_image(image_bytes("BMP")) == (40, 30)


def test_comments_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_COMMENTS", 3)
    assert check_image(b"P2 1 2 9\n# a\n# b\n# c\n1 2\n") == (1, 2)
    assert reason(b"P2 1 2 9\n# a\n# b\n# c\n# d\n1 2\n") == "image-bomb"
    assert check_image(b"P5 2 2 255\n####") == (2, 2)


@pytest.mark.parametrize("tile", [(16, 1 << 22), (1 << 14, 1 << 13), (1, 1 << 30)])
def test_tiles_count_as_pixels(tile: tuple[int, int]) -> None:
    tags = {**tiff_tags((24, 24), coding=8), 322: (4, [tile[0]]), 323: (4, [tile[1]])}
    assert reason(tiff(tags, [zlib.compress(b"")], tiled=True)) == "image-bomb"


def test_tiles_may_reach_beyond_the_longest_side() -> None:
    tags = {**tiff_tags((MAX_IMAGE_SIDE, 1), coding=8), 322: (4, [256]), 323: (4, [16])}
    tiles = [zlib.compress(bytes(256 * 16))] * 256
    assert check_image(tiff(tags, tiles, tiled=True)) == (MAX_IMAGE_SIDE, 1)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True), (">", True)])
def test_the_entries_of_a_tiff_are_counted(order: str, big: bool) -> None:
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    for entries, said in [(500, "cannot be opened"), (501, "claims 501 entries")]:
        if big:
            data = start + struct.pack(f"{order}HHQQ", 8, 0, 16, entries)
        else:
            data = start + struct.pack(f"{order}IH", 8, entries)
        with (
            warnings.catch_warnings(action="ignore"),
            pytest.raises(RejectedSampleError, match=said),
        ):
            check_image(data)


def test_a_raw_tiff_has_the_bytes_of_its_pixels() -> None:
    tags = {**tiff_tags((64, 64), (8, 8, 8), meaning=2), 278: (4, [1])}
    whole = tiff(tags, [bytes(192)] * 64)
    assert check_image(whole) == (64, 64)
    # Strips that overlap, each a byte behind the one before it.
    shared = tiff(tags, [b"\0"] * 64) + bytes(192)
    assert reason(shared) == "truncated-image"


def test_a_tiff_without_strips_is_rejected() -> None:
    assert reason(tiff(tiff_tags((1, 1)), [])) in ("undecodable-image", "truncated-image")


def test_the_shortest_webp_is_checked_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = 0x2F.to_bytes(1, "little") + (16_383 | 16_383 << 14).to_bytes(4, "little")
    body = b"WEBPVP8L" + struct.pack("<I", 6) + bits + b"\0"
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    assert reason(b"RIFF" + struct.pack("<I", len(body)) + body) == "image-bomb"


def test_a_palette_picture_needs_its_palette() -> None:
    assert reason(png((2, 2), 8, 3, zlib.compress(bytes(6)))) == "undecodable-image"
