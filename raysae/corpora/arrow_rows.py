"""Rows of Arrow files: IPC streams, as `datasets` saves them, and IPC files (Feather 2).

Every record batch is found again by its place: in a file by its number, in a stream by its byte
offset, unless columns are dictionary-encoded, for which a stream must be read from its start.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from raysae.corpora.conform import conform, plain
from raysae.corpora.learned import Contents

_FILE_MAGIC = b"ARROW1"

Placed = tuple[int, pa.RecordBatch]


def learn_arrow(source: pa.NativeFile) -> Contents:
    """Read an Arrow file through, and return its rows, columns and where its batches are.

    Raises:
        pa.ArrowException: It is damaged or cut off, no Arrow file, or of types that a subset of it,
            which is Parquet, could not have.
    """
    pairs: list[tuple[int, int]] = []
    rows = 0
    schema, batches = _batches(source)
    for place, batch in batches:
        # A wrong offset would let every later reader run into foreign memory.
        batch.validate(full=True)
        pairs.append((rows, place))
        rows += batch.num_rows
    schema = plain(schema)
    pq.write_table(schema.empty_table(), pa.BufferOutputStream())
    return Contents(rows, schema, np.array(pairs, "<i8").tobytes())


def read_arrow(
    source: pa.NativeFile,
    places: bytes,
    rows: range,
    schema: pa.Schema,
    rows_at_once: int,
) -> Iterator[pa.RecordBatch]:
    """Read the batches that hold some rows, and keep only these rows.

    Args:
        source: The file.
        places: As `learn_arrow` returned them.
        rows: Which rows of the file.
        schema: Columns and types of the result.
        rows_at_once: Rows of a batch that is returned, at most.

    Raises:
        pa.ArrowException: The file is damaged.
    """
    pairs = np.frombuffer(places, "<i8").reshape(-1, 2)
    first = max(0, int(np.searchsorted(pairs[:, 0], rows.start, side="right")) - 1)
    last = int(np.searchsorted(pairs[:, 0], rows.stop, side="left"))
    wanted = {place: row for row, place in pairs[first:last].tolist()}
    for place, batch in _batches(source, wanted)[1]:
        row = wanted[place]
        low, high = max(rows.start - row, 0), min(rows.stop - row, batch.num_rows)
        for piece in range(low, high, rows_at_once):
            part = conform(batch.slice(piece, min(rows_at_once, high - piece)), schema)
            # A copy: a slice would keep the whole batch in memory, or, of a mapped file, become
            # whatever somebody writes there later.
            yield part.take(pa.array(range(part.num_rows), pa.int64()))


def _batches(
    source: pa.NativeFile, wanted: Mapping[int, int] | None = None
) -> tuple[pa.Schema, Iterator[Placed]]:
    """Return a file's schema, and (place, batch) of all batches or of those at wanted places."""
    source.seek(0)
    magic = source.read(len(_FILE_MAGIC))
    source.seek(0)
    if magic == _FILE_MAGIC:
        reader = pa.ipc.open_file(source)
        numbers = range(reader.num_record_batches) if wanted is None else wanted
        return reader.schema, ((number, reader.get_batch(number)) for number in numbers)
    stream = pa.ipc.open_stream(source)
    schema = stream.schema
    if any(_has_dictionary(field.type) for field in schema):
        return schema, _in_order(source, stream, wanted)
    if wanted is None:
        found = _messages(source)
    else:
        found = ((offset, _message_at(source, offset)) for offset in wanted)
    return schema, ((place, pa.ipc.read_record_batch(message, schema)) for place, message in found)


def _in_order(
    source: pa.NativeFile, stream: pa.RecordBatchReader, wanted: Mapping[int, int] | None
) -> Iterator[Placed]:
    """Yield (number, batch) of a stream from its start on, as far as any is wanted."""
    if wanted is None:
        start = source.tell()
        for _ in _messages(source):
            pass
        source.seek(start)
    for number, batch in enumerate(stream):
        if wanted is not None and number > max(wanted, default=-1):
            return
        if wanted is None or number in wanted:
            yield number, batch


def _message_at(source: pa.NativeFile, offset: int) -> pa.Message:
    source.seek(offset)
    try:
        return pa.ipc.read_message(source)
    except EOFError as error:
        raise pa.ArrowInvalid("the stream ends early") from error


def _messages(source: pa.NativeFile) -> Iterator[tuple[int, pa.Message]]:
    """Yield (byte offset, message) of a stream from here on.

    Raises:
        pa.ArrowInvalid: It was cut off between two messages, or more follows it: there are rows
            that nobody would miss.
    """
    while True:
        offset = source.tell()
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            break
        yield offset, message
    if source.tell() == offset:
        raise pa.ArrowInvalid("the mark of the stream's end is missing: it was cut off")
    if source.tell() != source.size():
        raise pa.ArrowInvalid("more bytes follow the stream's end")


def _has_dictionary(type_: pa.DataType) -> bool:
    inside = (type_.field(i).type for i in range(type_.num_fields))
    return pt.is_dictionary(type_) or any(map(_has_dictionary, inside))
