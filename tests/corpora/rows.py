"""Rows and images, good and bad, for the tests of this package."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysae.corpora import Corpus

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

SCHEMA = pa.schema(
    [
        ("question", pa.string()),
        ("image", IMAGE_TYPE),
        ("response_1", pa.string()),
        ("response_2", pa.string()),
        ("overall_response", pa.int64()),
        ("critique", pa.string()),
    ]
)

ODD_NAMES = ["a b.parquet", "c#d?e%20f.parquet", "größe/日本.parquet", "x=1/y&z+w.parquet"]
"""File names that a URL or a pattern would take apart."""


def image_bytes(format_: str = "PNG", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """Encode noise, so that no compressor makes it trivially short."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, format_, **options)
    return stream.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def webp_claiming(width: int, height: int) -> bytes:
    """Return an extended WebP of a few bytes whose canvas claims a size."""
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def row(**changes: Any) -> dict[str, Any]:
    """Return a usable row with some columns changed; `image` may be given as bytes."""
    values: dict[str, Any] = {
        "question": "What is shown?",
        "image": image_bytes(),
        "response_1": "A cat.",
        "response_2": "A dog.",
        "overall_response": 1,
        "critique": "short",
        **changes,
    }
    if isinstance(values["image"], bytes):
        values["image"] = {"bytes": values["image"], "path": "x.png"}
    return values


def write_rows(
    path: Path, rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA, **options: Any
) -> Path:
    """Write rows as a Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, **options)
    return path


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    """Return rows as the bytes of a Parquet file."""
    sink = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), sink, **options)
    return sink.getvalue()


def questions(corpus: Corpus) -> list[str]:
    """Read all of a corpus, file by file."""
    return [
        question
        for index, file in enumerate(corpus.snapshot.files)
        for question in corpus.read(index, 0, file.rows)["question"].to_pylist()
    ]
