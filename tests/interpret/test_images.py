from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from raysae.interpret import images

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def decoded(picture: images.Picture) -> Image.Image:
    head, body = picture.uri.split(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "1"])
def test_thumbnail_is_a_small_jpeg_of_any_mode(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    picture = images.thumbnail(encoded(Image.new(mode, (900, 300)), kind))
    assert picture is not None
    assert (picture.width, picture.height) == (288, 96)
    assert decoded(picture).size == (288, 96)
    assert decoded(picture).format == "JPEG"


def test_small_images_stay_small():
    picture = images.thumbnail(encoded(Image.new("RGB", (5, 9))))
    assert picture is not None
    assert (picture.width, picture.height) == (5, 9)


@pytest.mark.parametrize("data", [None, b"", b"GIF89a", SVG, b"%PDF-1.4", b"\x89PNG\r\n\x1a\n" * 9])
def test_what_is_no_picture_has_none(data):
    assert images.thumbnail(data) is None
    assert images.patch_picture(data or b"", (0, 0, 1, 1)) is None


def test_truncated_images_have_none():
    whole = encoded(Image.effect_noise((200, 200), 90), "JPEG")
    assert images.thumbnail(whole[: len(whole) // 2]) is None


def test_huge_images_are_not_decoded(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    assert images.thumbnail(encoded(Image.new("RGB", (10, 10)))) is None


def test_patch_is_outlined_where_it_lies():
    image = Image.new("RGB", (240, 240), "navy")
    image.paste("white", (110, 110, 120, 120))
    box = (110 / 240, 110 / 240, 120 / 240, 120 / 240)
    picture = images.patch_picture(encoded(image), box)
    assert picture is not None
    crop = decoded(picture).convert("RGB")
    assert crop.size == (160, 160)
    # The crop is 96 px of the image, 0.4 of its side, about the patch.
    assert min(crop.getpixel((80, 80))) > 200
    yellow = [x for x in range(160) if crop.getpixel((x, 80))[1] > 150 > crop.getpixel((x, 80))[2]]
    assert 65 <= min(yellow) <= 72
    assert 87 <= max(yellow) <= 95


@settings(deadline=None)
@given(
    box=st.tuples(*[st.floats(-0.5, 1.5)] * 4),
    width=st.integers(1, 60),
    height=st.integers(1, 60),
)
def test_any_box_can_be_drawn(box, width, height):
    picture = images.patch_picture(encoded(Image.new("RGB", (width, height))), box, side=40)
    assert picture is not None
    assert max(picture.width, picture.height) == 40


def test_box_without_place_has_no_picture():
    data = encoded(Image.new("RGB", (9, 9)))
    assert images.patch_picture(data, (float("nan"), 0, 1, 1)) is None
