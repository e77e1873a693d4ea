"""A shard's samples table, read."""

from __future__ import annotations

import pyarrow as pa

from raysae.activations.format import SAMPLES_SCHEMA, is_whole
from raysae.activations.mapped_shard import AGAIN
from raysae.errors import DataError
from raysae.storage import Directory


def read_samples(directory: Directory, name: str) -> pa.Table:
    """Read a shard's samples table: the columns of `SAMPLES_SCHEMA`, one row per sample.

    Args:
        directory: The cache.
        name: The samples file, as the shard's done mark names it.

    Raises:
        DataError: It is missing or damaged.
    """
    path = directory.describe(name)
    try:
        content = pa.py_buffer(directory.read_bytes(name))
        with pa.ipc.open_stream(content) as stream:
            table = stream.read_all()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read ({reason}); {AGAIN}") from error
    if not is_whole(content):
        raise DataError(f"{path} was cut short; {AGAIN}")
    if not table.schema.equals(SAMPLES_SCHEMA, check_metadata=True):
        raise DataError(
            f"{path} has other columns, or another version, than a samples table:\n{table.schema}"
        )
    return table
