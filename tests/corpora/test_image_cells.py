from __future__ import annotations

import base64
from typing import Any

import pytest

from raysae.corpora.image_cells import images_of
from raysae.corpora.images import check_image
from raysae.errors import RejectedSampleError
from raysae.sample import IMAGE_FORMATS
from tests.corpora.rows import image_bytes

IMAGE = image_bytes("JPEG", (20, 10))
OTHER = image_bytes("PNG", (8, 8))
TEXT = base64.b64encode(IMAGE).decode()
TINY_GIF = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def reason(value: Any) -> str:
    with pytest.raises(RejectedSampleError, match="col") as caught:
        images_of(value, "col")
    assert len(caught.value.detail) < 200
    return caught.value.reason


@pytest.mark.parametrize(
    "value",
    [
        IMAGE,
        {"bytes": IMAGE, "path": None},
        {"path": "x.jpg", "bytes": IMAGE},
        {"bytes": IMAGE},
        {"bytes": IMAGE, "path": "x.jpg", "width": 20},
        {"bytes": TEXT, "path": None},
        {"bytes": list(IMAGE), "path": None},
        list(IMAGE),
        TEXT,
        f"data:image/jpeg;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        "\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76)),
        f" {TEXT}\n",
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(IMAGE).decode(),
    ],
)
def test_one_image_however_it_is_written(value: Any) -> None:
    assert images_of(value, "col") == (IMAGE,)
    assert images_of([value], "col") == (IMAGE,)
    assert images_of([value, {"bytes": OTHER}, value], "col") == (IMAGE, OTHER, IMAGE)


def test_every_format_is_known_as_base64() -> None:
    for format_ in IMAGE_FORMATS:
        data = image_bytes(format_, (2, 2))
        assert images_of(base64.b64encode(data).decode(), "col") == (data,)
    assert check_image(*images_of(TINY_GIF, "col")) == (1, 1)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " \n",
        [],
        {},
        {"bytes": None, "path": None},
        {"bytes": None, "path": ""},
        {"bytes": None},
        [None],
        [{"bytes": None, "path": None}, None, ""],
    ],
)
def test_no_image(value: Any) -> None:
    assert images_of(value, "col") == ()


@pytest.mark.parametrize("gap", [None, "", {"bytes": None, "path": None}])
def test_a_gap_in_a_list_is_no_shorter_list(gap: Any) -> None:
    assert reason([IMAGE, gap]) == "no-image"
    assert reason([gap, IMAGE]) == "no-image"


def test_no_bytes_are_a_lost_image() -> None:
    """Somebody meant to store one."""
    for empty in (b"", {"bytes": b"", "path": "x.jpg"}):
        (data,) = images_of(empty, "col")
        with pytest.raises(RejectedSampleError, match="no-image"):
            check_image(data)


@pytest.mark.parametrize(
    "value",
    [
        "x.jpg",
        "/data/x.png",
        "abcd",
        "train/0001",
        "images-12",
        "my photo",
        "my_image-001",
        "coco/train2017/000000000003",
        "https://example.org/x.jpg?token=" + "a" * 2000,
        "s3://bucket/x",
        "['a.jpg', 'b.jpg']",
        str(b"\xff\xd8"),
        {"bytes": None, "path": "x.jpg"},
        {"bytes": "", "path": "x.jpg"},
        ["x.jpg", "y.jpg"],
        [IMAGE, "x.jpg"],
        b"images/12.jpg",
        b"MM_0001.jpg\n",
        b"BM1/P1.png",
        b"P1/a.jpg",
        {"bytes": b"/data/12.png", "path": None},
    ],
)
def test_names_are_not_followed(value: Any) -> None:
    assert reason(value) == "image-by-path"


def test_base64_may_be_bytes() -> None:
    assert images_of(TEXT.encode(), "image") == images_of(TEXT, "image") == (IMAGE,)


@pytest.mark.parametrize("data", [b"P1 2 1 1 0", b"P3\n1 1 255 0 0 0.", b"no image", b"P2\t# a.b"])
def test_other_bytes_are_left_to_the_decoder(data: bytes) -> None:
    assert images_of(data, "image") == (data,)


@pytest.mark.parametrize(
    "value",
    [
        "data:image/svg+xml,%3Csvg%3E",
        "data:image/png;base64,",
        "data:image/png;base64,###",
        f"{TEXT * 3}###",
    ],
)
def test_texts_that_hold_no_image(value: str) -> None:
    assert reason(value) == "undecodable-image"


def test_long_base64_of_something_else_is_left_to_the_decoder() -> None:
    (data,) = images_of(base64.b64encode(bytes(2000)).decode(), "col")
    assert data == bytes(2000)


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        7,
        True,
        [256, 1],
        [1, "x"],
        [[[IMAGE]]],
        {"bytes": 1},
        {"url": "https://example.org/x.jpg"},
        {"image": IMAGE, "path": None},
        {"bytes": {"bytes": IMAGE}},
    ],
)
def test_what_is_no_image(value: Any) -> None:
    assert reason(value) == "wrong-type"
