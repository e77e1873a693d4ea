from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from raysae.errors import RejectedSampleError
from raysae.models.images import decode_image
from tests.models.tiny import encode, picture


def decoded(image: Image.Image, kind: str = "PNG", **kwargs: object) -> np.ndarray:
    rgb = decode_image(encode(image, kind, **kwargs))
    assert rgb.mode == "RGB"
    return np.asarray(rgb)


def test_rgb_comes_back_as_it_was() -> None:
    image = picture(5, 4)
    np.testing.assert_array_equal(decoded(image), np.asarray(image))


@pytest.mark.parametrize("orientation", range(10))
def test_exif_rotation_is_applied_as_pillow_does(orientation: int) -> None:
    image = picture(5, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(image, "PNG", exif=exif)
    with Image.open(io.BytesIO(encoded)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(np.asarray(decode_image(encoded)), expected)


@pytest.mark.parametrize(
    "tag",
    [
        (282, 2, 4, b"abc\0"),  # XResolution as text
        (282, 5, 1, b"\xff\xff\xff\x7f"),  # XResolution far outside of the file
        (0x0112, 2, 4, b"abc\0"),  # the orientation as text
        (34665, 2, 4, b"abc\0"),  # the EXIF directory's place as text
        (34853, 4, 1, b"\xff\xff\xff\x7f"),  # the GPS directory outside of the file
    ],
)
def test_odd_exif_does_not_cost_the_picture(tag: tuple[int, int, int, bytes]) -> None:
    number, kind, count, value = tag
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHI", number, kind, count)
    directory = b"II*\0" + struct.pack("<IH", 8, 2) + entries + value + b"\0\0\0\0"
    encoded = encode(picture(5, 4), "JPEG")
    segment = b"Exif\0\0" + directory
    spoiled = (
        encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + encoded[2:]
    )
    assert decode_image(spoiled).size in {(5, 4), (4, 5)}


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new(mode, (2, 2), (0,) * len(mode))
    assert (decoded(image) == 255).all()


def test_half_transparent_red_becomes_pink() -> None:
    assert decoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))[0, 0].tolist() == [255, 127, 127]


def test_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert decoded(image, transparency=0)[0].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_greyscale_and_one_bit() -> None:
    assert (decoded(Image.new("L", (1, 1), 77)) == 77).all()
    assert (decoded(Image.new("1", (1, 1), 1)) == 255).all()


def test_cmyk() -> None:
    red = decoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")[4, 4].astype(int)
    assert red[0] > 200
    assert max(red[1:]) < 60


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_deep_greyscale_is_scaled_not_clipped(dtype: type) -> None:
    values: np.ndarray = np.array([[0, 257 * 100, 65535]], dtype)
    kind = "PNG" if dtype is np.uint16 else "TIFF"
    assert decoded(Image.fromarray(values), kind)[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("full", [1.0, 255.0])
def test_float_greyscale(full: float) -> None:
    values = np.array([[0.0, full]], np.float32)
    assert decoded(Image.fromarray(values), "TIFF")[0, :, 0].tolist() == [0, 255]


def test_animation_shows_its_first_frame() -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    animated = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode_image(animated))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "undecodable-image"),
        (b"not an image", "undecodable-image"),
        (encode(picture(64, 64))[:2000], "truncated-image"),
        (encode(picture(64, 64), "JPEG")[:1000], "truncated-image"),
    ],
)
def test_bad_bytes_are_rejected_with_a_reason(encoded: bytes, reason: str) -> None:
    with pytest.raises(RejectedSampleError) as caught:
        decode_image(encoded)
    assert caught.value.reason == reason


def test_bomb_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(RejectedSampleError) as caught:
        decode_image(encode(picture(64, 64)))
    assert caught.value.reason == "image-bomb"


def test_formats() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        assert decode_image(encode(picture(9, 7), kind)).size == (9, 7)
