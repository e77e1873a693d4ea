from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from raysae.errors import RejectedSampleError
from raysae.models.images import decode_image, upright_size
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


KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
WITH_EXIF = ("PNG", "JPEG", "WEBP", "TIFF", "MPO")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def turned(kind: str, orientation: int | None, xmp: bool = False, **kwargs: Any) -> bytes:
    """A picture of 13 × 7 stored pixels that says how it is to be turned."""
    if kind == "TIFF":
        tags = ImageFileDirectory_v2()
        if orientation is not None:
            tags[0x0112] = orientation
        if xmp:
            tags[700] = XMP
        return encode(picture(13, 7), kind, tiffinfo=tags, **kwargs)
    if orientation is not None:
        kwargs["exif"] = Image.Exif()
        kwargs["exif"][0x0112] = orientation
    if xmp and kind == "PNG":
        kwargs["pnginfo"] = PngInfo()
        kwargs["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif xmp:
        kwargs["xmp"] = XMP
    if kind == "MPO":
        kwargs |= {"save_all": True, "append_images": [picture(5, 5)]}
    return encode(picture(13, 7), kind, **kwargs)


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def behind_the_pixels(*chunks: bytes) -> bytes:
    """A PNG whose metadata follow its pixels."""
    plain = encode(picture(13, 7))
    end = plain.index(b"IEND") - 4
    return plain[:end] + b"".join(chunks) + plain[end:]


@pytest.mark.parametrize("kind", KINDS)
def test_formats(kind: str) -> None:
    encoded = encode(picture(9, 7), kind)
    assert decode_image(encoded).size == upright_size(encoded) == (9, 7)


@pytest.mark.parametrize("kind", WITH_EXIF)
@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("xmp", [False, True])
def test_upright_size_is_that_of_the_decoded_image(kind: str, orientation: int, xmp: bool) -> None:
    encoded = turned(kind, orientation, xmp)
    lying = orientation in range(5, 9)
    assert upright_size(encoded) == decode_image(encoded).size
    if not xmp:
        assert upright_size(encoded) == ((7, 13) if lying else (13, 7))


@pytest.mark.parametrize("kind", WITH_EXIF)
def test_xmp_turns_where_exif_is_silent(kind: str) -> None:
    encoded = turned(kind, None, xmp=True)
    assert upright_size(encoded) == decode_image(encoded).size == (7, 13)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", None])
@pytest.mark.parametrize("orientation", [None, 1, 6])
def test_upright_size_of_compressed_tiff(compression: str | None, orientation: int | None) -> None:
    encoded = turned("TIFF", orientation, compression=compression)
    assert upright_size(encoded) == decode_image(encoded).size


def raw_profile(exif: bytes) -> bytes:
    """EXIF as ImageMagick writes it into a PNG: in hexadecimal digits."""
    text = f"\nexif\n{len(exif):8}\n{exif.hex()}\n"
    return b"Raw profile type exif\0\0" + zlib.compress(text.encode())


def exif_bytes() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


@pytest.mark.parametrize(
    "late",
    [
        chunk(b"eXIf", exif_bytes()[6:]),
        chunk(b"zTXt", raw_profile(exif_bytes())),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"tEXt", b"Software\0none"),
    ],
    ids=["eXIf", "zTXt", "XMP", "no orientation"],
)
def test_png_with_metadata_behind_its_pixels(late: bytes) -> None:
    encoded = behind_the_pixels(late)
    lies = b"Software" not in late
    assert decode_image(encoded).size == ((7, 13) if lies else (13, 7))
    assert upright_size(encoded) == decode_image(encoded).size


def test_size_of_an_animation_is_its_first_frames() -> None:
    frames = [picture(9, 7), picture(9, 7, seed=1)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        encoded = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert upright_size(encoded) == decode_image(encoded).size == (9, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_read_without_the_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode(picture(300, 200), kind)

    def refuse(_image: object) -> None:
        raise AssertionError("pixels were decoded")

    opened = type(Image.open(io.BytesIO(encoded)))
    monkeypatch.setattr(opened, "load", refuse)
    assert upright_size(encoded) == (300, 200)


@pytest.mark.parametrize("encoded", [b"", b"not an image", encode(picture(9, 7))[:20]])
def test_what_cannot_be_opened_has_no_size(encoded: bytes) -> None:
    reasons = set()
    for read in (decode_image, upright_size):
        with pytest.raises(RejectedSampleError) as caught:
            read(encoded)
        reasons.add(str(caught.value))
    assert len(reasons) == 1


def test_bombs_have_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(RejectedSampleError, match="image-bomb"):
        upright_size(encode(picture(64, 64)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(RejectedSampleError, match="image-bomb"):
            decode_image(encode(picture(5, 3)))


def damaged(encoded: bytes, rng: random.Random) -> bytes:
    """Change, cut or add some bytes."""
    data = bytearray(encoded)
    for _ in range(rng.randint(1, 5)):
        place = rng.randrange(min(len(data), rng.choice([60, 200, 10_000])))
        if rng.random() < 0.8:
            data[place] = rng.randrange(256)
        elif rng.random() < 0.5:
            data[place:place] = rng.randbytes(rng.randint(1, 9))
        else:
            del data[max(place, 1) :]
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*KINDS, "MPO"])
def test_damaged_images_that_decode_keep_their_size(kind: str) -> None:
    rng = random.Random(kind)
    orientations = (None, 1, 6) if kind in WITH_EXIF else (None,)
    whole = [turned(kind, orientation) for orientation in orientations]
    decoded = 0
    for _ in range(250):
        encoded = damaged(rng.choice(whole), rng)
        try:
            size = decode_image(encoded).size
        except RejectedSampleError:
            continue
        assert upright_size(encoded) == size
        decoded += 1
    assert decoded > 10 or kind == "PNG"  # its checksums reject nearly all damage
