"""What stands in a row's image columns: bytes, structs, base64 text, and lists of these."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from raysae.errors import RejectedSampleError

_PPM = tuple(b"P%d" % number for number in range(1, 8))
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"GIF8", b"BM", b"II", b"MM", *_PPM)
"""How files in `IMAGE_FORMATS` begin."""

_ASCII_PPM = re.compile(rb"P[1-7]\s")

_MAX_NAME = 1000
"""A longer text names no file."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


def images_of(value: Any, what: str) -> tuple[bytes, ...]:
    """Return the encoded images of a value: one, those of a list, or none.

    An image is bytes (or the list of numbers that JSON makes of them), Hugging Face's
    `{bytes, path}`, or base64 text, with or without the head of a `data:` URL. Null, a blank text
    and a struct of nulls are no image.

    Args:
        value: From a row.
        what: Its column, for the message.

    Raises:
        RejectedSampleError: `image-by-path`, `undecodable-image` or `wrong-type`; `no-image`, where
            some of a list are none: which of them the texts speak of cannot be told.
    """
    cells = value if isinstance(value, list) and not _is_numbers(value) else [value]
    found = [image for cell in cells if (image := _image(cell, what)) is not None]
    if found and len(found) < len(cells):
        missing = len(cells) - len(found)
        raise RejectedSampleError(
            "no-image", f"{what} holds no bytes for {missing} of {len(cells)} images"
        )
    return tuple(found)


def _is_numbers(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], int)


def _image(value: Any, what: str) -> bytes | None:
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        if path and data in (None, ""):
            raise _by_path(what, str(path))
        if "bytes" not in value and any(part is not None for part in value.values()):
            raise RejectedSampleError("wrong-type", f"{what} is a struct without bytes")
        value = data
    if isinstance(value, str):
        return _from_text(value, what) if value.strip() else None
    if isinstance(value, list) and _is_numbers(value):
        return _from_numbers(value, what)
    if value is not None and not isinstance(value, bytes):
        raise RejectedSampleError("wrong-type", f"{what} is no image, but {type(value).__name__}")
    return _from_bytes(value, what) if value else value


def _from_bytes(data: bytes, what: str) -> bytes:
    """Return a file; of a text that was written as bytes what it stands for."""
    # No file of an image begins with so many characters but a PPM in ASCII, which has line breaks.
    try:
        beginning = data[:_MAX_NAME].strip().decode()
    except UnicodeDecodeError:
        return data
    if not beginning.isprintable() or not {".", "/"} & set(beginning) or _ASCII_PPM.match(data):
        return data
    return _from_text(data.decode(errors="replace"), what)


def _from_numbers(numbers: list[Any], what: str) -> bytes:
    try:
        return bytes(numbers)
    except (ValueError, TypeError) as error:
        detail = f"{what} is a list of numbers that are no bytes"
        raise RejectedSampleError("wrong-type", detail) from error


def _from_text(text: str, what: str) -> bytes:
    """Decode base64, of either alphabet and with or without its padding."""
    head, comma, body = text.partition(",")
    is_url = bool(comma) and head.strip().startswith("data:")
    digits = "".join((body if is_url else text).split()).translate(str.maketrans("-_", "+/"))
    data = b""
    if _BASE64.fullmatch(digits) and len(bare := digits.rstrip("=")) % 4 != 1:
        data = base64.b64decode(bare + "=" * (-len(bare) % 4))
    if not data and (is_url or (len(text) > _MAX_NAME and "://" not in text[:10])):
        raise RejectedSampleError("undecodable-image", f"{what} is a text, but no base64")
    # Many a file's name is base64 too.
    if not is_url and (not data or (len(text) <= _MAX_NAME and not data.startswith(_BEGINNINGS))):
        raise _by_path(what, text)
    return data


def _by_path(what: str, path: str) -> RejectedSampleError:
    shown = path if len(path) <= 60 else f"{path[:57]}..."
    return RejectedSampleError(
        "image-by-path", f"{what} names {shown!r}, but files and URLs are not followed"
    )
