"""Ids: hashes over everything that determines a content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

ID_HEX_DIGITS = 24
"""96 bits: collisions are out of reach for any number of artifacts."""


def content_id(content: Any) -> str:
    """Hash any JSON-like value (dataclasses included) to 24 hex digits.

    Dictionary order does not matter; list order does.

    Raises:
        TypeError: Something in it is no JSON value.
        ValueError: A number in it is not finite.
    """
    canonical = json.dumps(plain(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:ID_HEX_DIGITS]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex, reading it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """Turn dataclasses and tuples into what JSON holds, so that equal content compares equal.

    Raises:
        TypeError: A key is no text: 1 and "1" would become the same.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"content has the key {key!r}, which is no text")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
