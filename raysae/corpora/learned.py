"""What a job learns of a corpus file by opening it, with equal schemas held once."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa


class Contents(NamedTuple):
    """What a corpus file holds.

    Attributes:
        rows: Its rows.
        schema: Its columns.
        places: Where rows are, as the file's format has it; empty where the file itself tells, as
            Parquet does.
    """

    rows: int
    schema: pa.Schema
    places: bytes = b""


class Learned(NamedTuple):
    """What is known of a corpus file.

    Attributes:
        fingerprint: Its content's, see `raysae.corpora.fingerprints`.
        rows: As in `Contents`.
        schema: Likewise; one object for all files with an equal schema.
        places: As in `Contents`.
    """

    fingerprint: str
    rows: int
    schema: pa.Schema
    places: bytes = b""


class FileSchema(NamedTuple):
    """One of a corpus' distinct schemas.

    Attributes:
        uri: The first file that has it.
        schema: Its columns.
    """

    uri: str
    schema: pa.Schema


class Schemas:
    """Gives one object for all equal schemas, metadata included."""

    def __init__(self) -> None:
        self._by_bytes: dict[bytes, pa.Schema] = {}

    def intern(self, schema: pa.Schema) -> pa.Schema:
        """Return the first schema seen that equals this one."""
        return self._by_bytes.setdefault(schema.serialize().to_pybytes(), schema)

    def read(self, data: bytes) -> pa.Schema:
        """Return the schema that was serialised to `data`."""
        if data not in self._by_bytes:
            self._by_bytes[data] = pa.ipc.read_schema(pa.py_buffer(data))
        return self._by_bytes[data]
