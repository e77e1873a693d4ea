from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.corpora.conform import is_json_text
from raysae.corpora.json_types import MAX_COLUMNS, MAX_DEPTH, MAX_KEYS, JsonColumns

MIXED = "JSON text"
TEXT, WHOLE, FLOAT = pa.string(), pa.int64(), pa.float64()


def schema_of(rows: list[dict[str, Any]]) -> pa.Schema:
    columns = JsonColumns()
    for row in rows:
        columns.add(row)
    return columns.schema()


def type_of(*values: Any) -> pa.DataType | str:
    field = schema_of([{"a": value} for value in values]).field("a")
    return MIXED if is_json_text(field) else field.type


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([None], pa.null()),
        (["x", None], TEXT),
        ([True, None], pa.bool_()),
        ([2**63 - 1, -(2**63)], WHOLE),
        ([1, 2.5], FLOAT),
        ([2**53, -(2**53), 0.5], FLOAT),
        ([2**53 + 1, 1], WHOLE),
        ([2**53 + 1, 0.5], MIXED),
        ([0.5, -(2**53) - 1], MIXED),
        ([2**63], MIXED),
        ([1, True], MIXED),
        ([1, "x"], MIXED),
        ([[], None], pa.list_(pa.null())),
        ([[1], [2.5, None]], pa.list_(FLOAT)),
        ([[1, "x"]], MIXED),
        ([[1], {"x": 1}], MIXED),
        ([[1], 1], MIXED),
        ([{}], MIXED),
        ([[{}]], MIXED),
        ([{}, {"x": None}], pa.struct([("x", pa.null())])),
        ([{"y": 1}, {"x": "a", "y": 0.5}], pa.struct([("y", FLOAT), ("x", TEXT)])),
        ([{"y": 1}, {"y": "a"}], MIXED),
        ([{"y": [2**60]}, {"y": [0.5]}], MIXED),
        ([[{"r": "a"}, {"c": ["b"]}]], pa.list_(pa.struct([("r", TEXT), ("c", pa.list_(TEXT))]))),
    ],
)
def test_a_columns_type_holds_all_its_values(values: list[Any], type_: pa.DataType | str) -> None:
    assert type_of(*values) == type_
    if type_ != MIXED:
        assert pa.array(values, type_).to_pylist() != []


def test_columns_come_in_the_order_of_their_first_row() -> None:
    assert schema_of([{"b": 1}, {"a": 1, "b": 2}, {}, {"": 1}]).names == ["b", "a", ""]
    assert schema_of([]) == pa.schema([])


def test_deep_columns_are_json_text() -> None:
    deepest = type_of(nested(MAX_DEPTH + 1))
    assert type_of(nested(MAX_DEPTH + 2)) == MIXED
    table, sink = pa.table({"a": pa.array([nested(MAX_DEPTH + 1)], deepest)}), io.BytesIO()
    pq.write_table(table, sink)
    assert pq.read_table(sink).to_pylist() == table.to_pylist()
    assert pa.ipc.read_schema(table.schema.serialize()) == table.schema


def test_objects_that_are_tables_of_their_own_are_json_text() -> None:
    """Their type would grow with each row."""
    rows = [{"m": {f"key {i}": i}, "n": 1} for i in range(20_000)]
    assert len(schema_of(rows[:MAX_KEYS]).field("m").type) == MAX_KEYS
    assert is_json_text(schema_of(rows).field("m"))
    assert is_json_text(schema_of([{"m": dict.fromkeys(map(str, range(20_000)))}]).field("m"))


def test_rows_that_share_no_columns_are_refused() -> None:
    with pytest.raises(pa.ArrowInvalid, match="more than 10000 different keys"):
        schema_of([{f"key {i}": i} for i in range(MAX_COLUMNS + 1)])
