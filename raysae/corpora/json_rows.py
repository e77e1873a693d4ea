"""Rows of JSON lines: one object a line, of which some may be broken.

A blank line is no row. Every other line is one: a line that holds no object is a row whose `BROKEN`
column tells why, so that it is counted and rejected rather than skipped. A column of which the
values have types that do not go together is kept as JSON text (see `conform`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from raysae.corpora.conform import BROKEN, UnfitError, is_json_text
from raysae.corpora.json_types import JsonColumns
from raysae.corpora.learned import Contents

ROWS_PER_PLACE = 64
"""Rows between two remembered places in a file."""

MAX_LINE_BYTES = 256 * 2**20
"""A line of so many bytes or more is a broken one; it is not held in memory."""

MAX_BATCH_BYTES = 64 * 2**20
"""A batch ends with the line that reaches this, however few rows it has."""

MAX_NESTING = 200
"""A line that nests deeper is a broken one; Python's own limit depends on who calls."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Row = dict[str, Any]


class BrokenLineError(ValueError):
    """A line holds no row; the text says why."""


def learn_json(source: BinaryIO) -> Contents:
    """Read a file through, and return its rows, columns and where every 64th row is.

    Raises:
        pa.ArrowInvalid: It has too many columns.
    """
    places: list[int] = []
    rows, broken, columns = 0, False, JsonColumns()
    for place, line in _lines(source):
        if rows % ROWS_PER_PLACE == 0:
            places.append(place)
        rows += 1
        try:
            columns.add(parse_line(line))
        except BrokenLineError:
            broken = True
    schema = columns.schema()
    if broken:
        schema = schema.append(pa.field(BROKEN, pa.string()))
    return Contents(rows, schema, np.array(places, "<i8").tobytes())


def read_json(
    source: BinaryIO,
    places: bytes,
    rows: range,
    schema: pa.Schema,
    rows_at_once: int,
) -> Iterator[pa.RecordBatch]:
    """Read some rows of a file.

    Args:
        source: The file.
        places: As `learn_json` returned them.
        rows: Which rows of the file.
        schema: Columns and types of the result, unified over files by `conform.unify`.
        rows_at_once: Rows of a batch that is returned, at most.

    Raises:
        pa.ArrowException: A value has another type than when the file was learned.
    """
    if not rows:
        return
    number = rows.start // ROWS_PER_PLACE
    source.seek(int(np.frombuffer(places, "<i8")[number]))
    held: list[Row] = []
    size = 0
    for row, (_, line) in enumerate(_lines(source), start=number * ROWS_PER_PLACE):
        if row < rows.start:
            continue
        held.append(_row_of(line))
        size += len(line or b"")
        is_last = row + 1 == rows.stop
        if is_last or len(held) == rows_at_once or size >= MAX_BATCH_BYTES:
            yield _batch(held, schema)
            held, size = [], 0
        if is_last:
            return


def bytes_to_read(places: bytes, rows: range, size: int) -> int:
    """Return how many bytes of a file have to be read for some rows of it, at most.

    Args:
        places: As `learn_json` returned them.
        rows: Which rows, at least one.
        size: Bytes of the file.
    """
    starts = np.append(np.frombuffer(places, "<i8"), size)
    return int(starts[-(-rows.stop // ROWS_PER_PLACE)] - starts[rows.start // ROWS_PER_PLACE])


def parse_line(line: bytes | None) -> Row:
    """Return the object that a line holds.

    Args:
        line: None stands for one that is too long.

    Raises:
        BrokenLineError: It holds none.
    """
    if line is None:
        raise BrokenLineError(f"the line has {MAX_LINE_BYTES} bytes or more")
    try:
        value = json.loads(line.decode())
        if _SURROGATE.search(line):
            # Half of a surrogate pair is JSON, but no text.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        detail = f"the line is no JSON: {error.msg} at character {error.pos + 1}"
        raise BrokenLineError(detail) from error
    # Too deep nesting and too long numbers among them.
    except (ValueError, RecursionError) as error:
        raise BrokenLineError(f"the line is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BrokenLineError(f"the line is no JSON object, but {type(value).__name__}")
    if line.count(b"[") + line.count(b"{") > MAX_NESTING and _nesting(value) > MAX_NESTING:
        raise BrokenLineError(f"the line nests deeper than {MAX_NESTING}")
    if BROKEN in value:
        raise BrokenLineError(f"the line has the key {BROKEN!r}, which raysae uses itself")
    return value


def _nesting(value: Row) -> int:
    """Return how deep lists and objects lie in each other."""
    depth = 0
    level: list[Any] = [value]
    while level:
        depth += 1
        inside = (part.values() if isinstance(part, dict) else part for part in level)
        level = [child for part in inside for child in part if isinstance(child, dict | list)]
    return depth


def _row_of(line: bytes | None) -> Row:
    try:
        return parse_line(line)
    except BrokenLineError as error:
        return {BROKEN: str(error)}


def _lines(source: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield (byte offset, line) of every line that is not blank, None for one that is too long."""
    end = source.tell()
    while line := source.readline(MAX_LINE_BYTES):
        place, end = end, end + len(line)
        if len(line) == MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = source.readline(MAX_LINE_BYTES)
                end += len(line)
            yield place, None
            continue
        line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.strip():
            yield place, line


def _batch(rows: list[Row], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_column(rows, field) for field in schema], schema=schema)


def _column(rows: list[Row], field: pa.Field) -> pa.Array:
    values = [row.get(field.name) for row in rows]
    if is_json_text(field):
        values = [None if v is None else json.dumps(v, ensure_ascii=False) for v in values]
    try:
        return pa.array(values, field.type)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnfitError(field, error) from error
