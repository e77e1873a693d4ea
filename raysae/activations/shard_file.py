"""The two files of a shard, written as Arrow IPC streams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pyarrow as pa

from raysae.activations.collected import OrderedTokens
from raysae.activations.format import (
    MAX_BATCH_BYTES,
    Compression,
    dtype_name,
    tokens_schema,
)
from raysae.activations.record_batches import one_ahead, rows_in_batch

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ALIGNMENT = 8
"""To which Arrow pads every buffer in a message."""


class TokenLayout(NamedTuple):
    """Where the hidden states lie in a token file, so that one of them can be read by itself.

    Attributes:
        batch_rows: Rows in each record batch but the last.
        offsets: Of each record batch's first hidden state, bytes from the file's start; none where
            they are compressed.
    """

    batch_rows: int
    offsets: tuple[int, ...]


class Appendable(Protocol):
    """What a token file is written to."""

    closed: bool

    def write(self, data: ReadableBuffer) -> int:
        """Append bytes, which are copied."""
        ...

    def tell(self) -> int:
        """Return the bytes so far."""
        ...

    def flush(self) -> None:
        """Called by Arrow."""
        ...

    def close(self) -> None:
        """Called by Arrow at the end."""
        ...


def write_token_file(
    file: Appendable, tokens: OrderedTokens, compression: Compression = "none"
) -> TokenLayout:
    """Write a shard's tokens.

    Args:
        file: Where, from its start.
        tokens: In the order of writing.
        compression: Of the buffers.
    """
    acts_nd = tokens.acts_nd
    d_in, dtype = acts_nd.shape[1], dtype_name(acts_nd.dtype)
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    schema = tokens_schema(d_in, dtype, compression)
    offsets = []
    with (
        pa.PythonFile(file, "w") as sink,
        pa.ipc.new_stream(sink, schema, options=options) as stream,
        tokens.batches(MAX_BATCH_BYTES, compression) as batches,
    ):
        for batch in one_ahead(batches):
            stream.write_batch(batch)
            # The hidden states are a message's last buffer.
            held = batch.num_rows * d_in * acts_nd.element_size()
            offsets.append(file.tell() - held - -held % _ALIGNMENT)
    rows = rows_in_batch(d_in, dtype, MAX_BATCH_BYTES)
    return TokenLayout(rows, tuple(offsets) if compression == "none" else ())


def write_samples_file(path: Path, samples: pa.Table) -> None:
    """Write a shard's samples table."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, samples.schema) as stream:
        stream.write_table(samples)
