from __future__ import annotations

import contextlib
import random
import tracemalloc
import warnings
from io import BytesIO

import pytest
from PIL import Image, ImageFile

from raysae.corpora.images import MAX_IMAGE_PIXELS, check_image
from raysae.errors import RejectedSampleError
from raysae.models.images import decode_image
from raysae.sample import IMAGE_FORMATS
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
