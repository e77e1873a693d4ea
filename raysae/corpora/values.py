"""What stands in a row's columns: Python's values, parts of them, and texts.

A value that cannot be used rejects its row, with a reason; it is never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa

from raysae.corpora.conform import is_json_text
from raysae.errors import RejectedSampleError


def row_values(columns: Mapping[str, pa.ChunkedArray], row: int) -> dict[str, Any]:
    """Return a row's values as Python objects.

    Args:
        columns: Name → column.
        row: Which row.

    Raises:
        RejectedSampleError: `undecodable-text`: a text is no UTF-8; `wrong-type`: Python has no
            such value.
    """
    try:
        return {name: column[row].as_py() for name, column in columns.items()}
    except UnicodeDecodeError as error:
        raise RejectedSampleError("undecodable-text", f"a text is no UTF-8: {error}") from error
    except MemoryError:  # the machine's fault, not the row's
        raise
    # A date outside of Python's years, two fields of one name, an unknown time zone.
    except (ValueError, OverflowError, LookupError, pa.ArrowException) as error:
        raise RejectedSampleError("wrong-type", f"a value cannot be read: {error}") from error


def decoded(values: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Replace JSON texts by what they say, in columns and parts of columns that hold JSON.

    Raises:
        RejectedSampleError: `wrong-type`: such a text is no JSON.
    """
    return {name: _decoded(value, schema.field(name), name) for name, value in values.items()}


def _decoded(value: Any, field: pa.Field, what: str) -> Any:
    if not (is_json_text(field) or _holds_json(field.type)) or value is None:
        return value
    try:
        return json.loads(value) if is_json_text(field) else _without_json(value, field.type)
    except (ValueError, RecursionError) as error:
        raise RejectedSampleError("wrong-type", f"{what} is no JSON: {error}") from error


@lru_cache
def _holds_json(type_: pa.DataType) -> bool:
    """Whether values of a type have JSON in them: `datasets` writes objects of many shapes so."""
    if isinstance(type_, pa.StructType):
        return any(_holds_json(field.type) for field in type_)
    if isinstance(type_, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return _holds_json(type_.value_type)
    return isinstance(type_, pa.JsonType)


def _without_json(value: Any, type_: pa.DataType) -> Any:
    if value is None or not _holds_json(type_):
        return value
    if isinstance(type_, pa.JsonType):
        return json.loads(value)
    if isinstance(value, Mapping):
        return {field.name: _without_json(value[field.name], field.type) for field in type_}
    return [_without_json(item, type_.value_type) for item in value]


def at_path(values: Mapping[str, Any], path: str) -> Any:
    """Return a column's value, or with dots a part of it: `meta.prompt`; None if it is not there.

    A column whose own name has dots comes first.
    """
    if path in values:
        return values[path]
    name, *parts = path.split(".")
    value = values.get(name)
    for part in parts:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def text_of(value: Any, what: str, reason: str) -> str:
    """Return a text that is not blank.

    Args:
        value: From a row.
        what: Its column, for the message.
        reason: Why a row without it is rejected.

    Raises:
        RejectedSampleError: `reason`, `wrong-type` or `undecodable-text`.
    """
    if value is None:
        raise RejectedSampleError(reason, f"{what} is null")
    if not isinstance(value, str):
        raise RejectedSampleError("wrong-type", f"{what} is no text, but {type(value).__name__}")
    if not value.strip():
        raise RejectedSampleError(reason, f"{what} is blank")
    return whole(value, what)


def whole(text: str, what: str) -> str:
    """Return a text without half of a surrogate pair, which JSON can write, but UTF-8 cannot.

    Raises:
        RejectedSampleError: `undecodable-text`: it has one.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        detail = f"{what} has a character that is no Unicode: {error.reason}"
        raise RejectedSampleError("undecodable-text", detail) from error
    return text


def id_of(value: Any, what: str) -> str | None:
    """Return a row's own id: a text or an integer; None if it is null or blank.

    Raises:
        RejectedSampleError: `wrong-type` or `undecodable-text`.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return text_of(value, what, "wrong-type")
