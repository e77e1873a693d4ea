"""The two files of a shard, written as Arrow IPC streams."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from raysae.activations.collected import OrderedTokens
from raysae.activations.format import (
    MAX_BATCH_BYTES,
    Compression,
    dtype_name,
    tokens_schema,
)
from raysae.activations.record_batches import one_ahead, rows_in_batch

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


def write_token_file(
    path: Path, tokens: OrderedTokens, compression: Compression = "none"
) -> TokenLayout:
    """Write a shard's tokens: each hidden state is copied once here and once by the system.

    Args:
        path: The file; replaced if there is one.
        tokens: In the order of writing.
        compression: Of the buffers.
    """
    acts_nd = tokens.acts_nd
    d_in, dtype = acts_nd.shape[1], dtype_name(acts_nd.dtype)
    options = pa.ipc.IpcWriteOptions(compression=None if compression == "none" else compression)
    schema = tokens_schema(d_in, dtype, compression)
    offsets = []
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_stream(file, schema, options=options) as stream,
    ):
        for batch in one_ahead(tokens.batches(MAX_BATCH_BYTES, compression)):
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
