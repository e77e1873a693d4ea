"""Rows of any columns and values, read by a column map without a file."""

from __future__ import annotations

import base64
import json
from typing import Any

import pyarrow as pa

from raysae.corpora import CorpusFiles, CorpusSnapshot
from raysae.corpora.columns import ColumnMap
from raysae.corpora.conform import json_text
from raysae.corpora.learned import FileSchema
from raysae.corpora.mapped import MappedCorpus
from raysae.sample import Rejection, Sample
from tests.corpora.rows import image_bytes

IMAGE = image_bytes("JPEG", (20, 10))
OTHER = image_bytes("PNG", (8, 8))
ASKED = [{"role": "user", "content": "What?"}]


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def corpus_of(schema: pa.Schema, rows: int, map_: ColumnMap) -> MappedCorpus:
    files = CorpusFiles.of(
        "/x", ["a"], [1], ["f" * 64], [rows], mtimes_ns=[0], ctimes_ns=[0], places=[b""]
    )
    return MappedCorpus(CorpusSnapshot("x", files), [FileSchema("a", schema)], map_)


def read_table(table: pa.Table, map_: ColumnMap) -> list[Sample | Rejection]:
    items = list(corpus_of(table.schema, table.num_rows, map_).samples(table, 0))
    assert [item.ordinal for item in items] == list(range(table.num_rows))
    return items


def read(map_: ColumnMap, *rows: dict[str, Any]) -> list[Sample | Rejection]:
    """Read rows of any values, each column as JSON text."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [
        pa.array([None if row.get(name) is None else json.dumps(row[name]) for row in rows])
        for name in names
    ]
    schema = pa.schema([json_text(name) for name in names])
    return read_table(pa.table([column.cast(pa.string()) for column in columns], schema), map_)


def sample(map_: ColumnMap, row: dict[str, Any]) -> Sample:
    (item,) = read(map_, row)
    assert isinstance(item, Sample), item
    return item


def reason(map_: ColumnMap, row: dict[str, Any]) -> str:
    (item,) = read(map_, row)
    assert isinstance(item, Rejection), item
    assert item.detail
    assert "\n" not in item.detail
    assert len(item.detail) < 200
    return item.reason


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()
