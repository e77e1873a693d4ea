"""JSON documents: how they are written, and errors that name them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysae.errors import DataError


def to_json(value: Any) -> bytes:
    """Return a value as indented JSON with sorted keys.

    JSON has no numbers that are not finite: NaN and infinities are written as null, which
    `as_number` reads as NaN.
    """
    return (json.dumps(_finite(value), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        data: The file's bytes.
        where: The file's path, for messages.

    Raises:
        DataError: They are no JSON object.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is damaged ({error}); delete it and run again.") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} holds no JSON object; delete it and run again.")
    return value


def as_number(value: float | None) -> float:
    """Return a number that `to_json` wrote: NaN where it wrote null."""
    return math.nan if value is None else float(value)


def _finite(value: Any) -> Any:
    """Replace the numbers that JSON lacks by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a local file, such as a model's.

    Raises:
        DataError: The file holds something else.
    """
    return parse_json(path.read_bytes(), str(path))
