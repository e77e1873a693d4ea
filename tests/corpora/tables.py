"""Random tables, and the ways in which files of them are written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq
from hypothesis import strategies as st

from tests.corpora.rows import IMAGE_TYPE, image_bytes

TEXT = st.text(max_size=5)
BYTES = st.binary(max_size=5)
IMAGES = st.fixed_dictionaries({"bytes": st.none() | BYTES, "path": st.none() | TEXT})
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXT, "turn": st.integers(0, 9)}), max_size=3)
MESSAGE_TYPE = pa.struct([("role", pa.string()), ("turn", pa.int16())])

PLAIN_COLUMNS = [
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.bool_(), st.booleans()),
    (pa.binary(), BYTES),
    (IMAGE_TYPE, IMAGES),
    (pa.list_(IMAGE_TYPE), st.lists(IMAGES, max_size=2)),
    (pa.list_(MESSAGE_TYPE), MESSAGES),
    (pa.null(), st.none()),
    (pa.json_(), st.sampled_from(["{}", "[1, 2]"])),
]
VIEW_COLUMNS = [
    (pa.string_view(), st.text(max_size=20)),
    (pa.binary_view(), st.binary(max_size=20)),
    (pa.list_(pa.string_view()), st.lists(st.text(max_size=20), max_size=2)),
]
DICTIONARY_COLUMNS = [
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from("abc")),
    (pa.dictionary(pa.int32(), pa.large_string()), TEXT),
]


def tables(
    columns: list[tuple[pa.DataType, st.SearchStrategy]], max_rows: int = 12
) -> st.SearchStrategy[pa.Table]:
    """Draw tables of one to four of these columns, in pieces, each with dictionaries of its own."""

    @st.composite
    def draw_table(draw: st.DrawFn) -> pa.Table:
        pieces = draw(st.lists(st.integers(0, max_rows // 3), max_size=5))
        kinds = draw(st.lists(st.sampled_from(columns), min_size=1, max_size=4))
        chunks = [
            [
                pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), type_)
                for rows in pieces
            ]
            for type_, values in kinds
        ]
        arrays = [
            pa.chunked_array(column, type_)
            for column, (type_, _) in zip(chunks, kinds, strict=True)
        ]
        return pa.table(arrays, names=[f"c{i}" for i in range(len(kinds))])

    return draw_table()


def stream(table: pa.Table, **options: object) -> bytes:
    """Return a table as an Arrow stream, one batch for each of its pieces."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def ipc_file(table: pa.Table, **options: object) -> bytes:
    """Return a table as an Arrow file."""
    sink = io.BytesIO()
    options = {"unify_dictionaries": True, **options}
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def feather(table: pa.Table, compression: str = "lz4", chunk: int = 4) -> bytes:
    """Return a table as a Feather file."""
    sink = io.BytesIO()
    pf.write_feather(table.unify_dictionaries(), sink, compression=compression, chunksize=chunk)
    return sink.getvalue()


def parquet_file(table: pa.Table) -> bytes:
    """Return a table as a Parquet file of small row groups."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=5)
    return sink.getvalue()


ARROW_WRITERS: dict[str, Callable[[pa.Table], bytes]] = {
    "stream": stream,
    "lz4 stream": lambda table: stream(table, compression="lz4"),
    "old stream": lambda table: stream(table, use_legacy_format=True),
    "file": ipc_file,
    "zstd file": lambda table: ipc_file(table, compression="zstd"),
    "feather": feather,
}


def jsonl(table: pa.Table) -> bytes:
    """Return a table of values that JSON has as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode()


WRITERS: dict[str, Callable[[pa.Table], bytes]] = {
    ".parquet": parquet_file,
    ".arrow": stream,
    ".feather": feather,
    ".jsonl": jsonl,
    ".ndjson": jsonl,
}
"""How a file of each ending is written."""


PICTURE = image_bytes(size=(6, 5))


def saved(count: int, first: int = 0) -> Any:
    """Return a data set as people make them."""
    import datasets

    rows = [
        {
            "q": f"question {i}",
            "image": {"bytes": PICTURE, "path": None},
            "chat": [
                {"role": "user", "content": f"question {i}"},
                {"role": "assistant", "content": "a"},
            ],
            "label": i % 2,
            "free": json.dumps({"n": i}),
        }
        for i in range(first, first + count)
    ]
    features = datasets.Features(
        {
            "q": datasets.Value("string"),
            "image": datasets.Image(),
            "chat": [{"role": datasets.Value("string"), "content": datasets.Value("string")}],
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "free": datasets.Json(),
        }
    )
    return datasets.Dataset.from_list(rows, features=features)
