from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.corpora.conform import conform, is_json_text, json_text, plain, unify
from raysae.corpora.learned import FileSchema
from raysae.errors import DataError
from tests.corpora.tables import PLAIN_COLUMNS, VIEW_COLUMNS, tables

TEXT, WHOLE, FLOAT = pa.string(), pa.int64(), pa.float64()


def unified(*schemas: dict[str, pa.DataType] | pa.Schema, end: str = ".parquet") -> pa.Schema:
    return unify(
        [
            FileSchema(f"/data/{number}{end}", pa.schema(schema))
            for number, schema in enumerate(schemas)
        ]
    )


def test_one_schema_stays_as_it_is() -> None:
    field = pa.field("a", TEXT, nullable=False, metadata={"x": "y"})
    schema = pa.schema([field, ("b", WHOLE)], {"huggingface": "{}"})
    assert unified(schema, schema).equals(schema, check_metadata=True)


@pytest.mark.parametrize("end", [".parquet", ".arrow", ".jsonl"])
@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int8(), WHOLE, WHOLE),
        (WHOLE, FLOAT, FLOAT),
        (pa.null(), TEXT, TEXT),
        (TEXT, pa.large_string(), pa.large_string()),
        (pa.list_(pa.null()), pa.list_(WHOLE), pa.list_(WHOLE)),
        (
            pa.struct([("x", WHOLE), ("y", TEXT)]),
            pa.struct([("z", TEXT), ("x", FLOAT)]),
            pa.struct([("x", FLOAT), ("y", TEXT), ("z", TEXT)]),
        ),
    ],
)
def test_types_widen(one: pa.DataType, other: pa.DataType, both: pa.DataType, end: str) -> None:
    schema = unified({"b": one}, {"a": TEXT, "b": other}, end=end)
    assert schema == pa.schema({"b": both, "a": TEXT})
    batch = pa.record_batch([pa.nulls(2, one)], names=["b"])
    assert conform(batch, schema).schema == schema


CONFLICTS = [
    (WHOLE, TEXT),
    (pa.bool_(), WHOLE),
    (pa.list_(WHOLE), WHOLE),
    (pa.struct([("x", TEXT)]), pa.struct([("x", WHOLE)])),
    (pa.struct([("x", TEXT)]), TEXT),
]


@pytest.mark.parametrize(("one", "other"), CONFLICTS)
def test_types_that_have_nothing_in_common_are_json_text_or_an_error(
    one: pa.DataType, other: pa.DataType
) -> None:
    schema = unified({"a": one}, {"b": TEXT}, {"a": other}, {"a": one}, end=".jsonl")
    assert schema.names == ["a", "b"]
    assert is_json_text(schema.field("a"))
    with pytest.raises(DataError, match=r"/data/2\.arrow has a column of another type.*'a': "):
        unified({"a": one}, {"b": TEXT}, {"a": other}, {"a": one}, end=".arrow")


def test_one_files_json_text_is_that_of_all() -> None:
    """Whichever comes first: a text itself would be no JSON."""
    mixed = pa.schema([json_text("a")])
    for schemas in ([{"a": TEXT}, mixed], [mixed, {"a": TEXT}], [{"a": WHOLE}, {}, mixed]):
        assert is_json_text(unified(*schemas, end=".jsonl").field("a"))


def test_a_column_that_is_missing_somewhere_may_be_null() -> None:
    sure = pa.schema([pa.field("a", TEXT, nullable=False), pa.field("b", TEXT, nullable=False)])
    schema = unified(sure, {"b": TEXT, "c": TEXT})
    assert schema.field("a").nullable
    batch = conform(pa.record_batch({"b": ["x"], "c": ["y"]}), schema)
    pq.write_table(pa.Table.from_batches([batch]), io.BytesIO())


def test_columns_of_one_name_are_refused() -> None:
    twice = pa.schema([("b", TEXT), ("a", TEXT), ("a", TEXT)])
    for schemas in ([twice], [{"a": TEXT}, twice]):
        with pytest.raises(DataError, match=r"parquet has several columns 'a'"):
            unified(*schemas)


@settings(max_examples=60)
@given(tables([*PLAIN_COLUMNS, *VIEW_COLUMNS]))
def test_plain_types_hold_the_same_and_can_be_taken_and_written(table: pa.Table) -> None:
    schema = plain(table.schema)
    for batch in table.to_batches():
        rows = conform(batch, schema).take(pa.array(range(batch.num_rows), pa.int64()))
        assert rows.to_pylist() == batch.to_pylist()
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_batches([rows]), sink)
        assert pq.read_table(sink).to_pylist() == batch.to_pylist()


def test_nested_views_are_replaced() -> None:
    views = pa.struct([("x", pa.large_list(pa.binary_view())), ("y", WHOLE)])
    schema = pa.schema([pa.field("a", views, metadata={"k": "v"})], {"x": "y"})
    wanted = pa.struct([("x", pa.large_list(pa.large_binary())), ("y", WHOLE)])
    expected = pa.schema([pa.field("a", wanted, metadata={"k": "v"})], {"x": "y"})
    assert plain(schema).equals(expected, check_metadata=True)


@settings(max_examples=60)
@given(st.permutations(["a", "b", "c"]), st.sets(st.sampled_from("abc")))
def test_columns_come_in_the_corpus_order(order: list[str], held: set[str]) -> None:
    schema = pa.schema([(name, FLOAT) for name in order])
    batch = pa.record_batch({name: [1, 2] for name in [*sorted(held), "other"]})
    expected = {name: [1.0, 2.0] if name in held else [None, None] for name in order}
    found = conform(batch, schema)
    assert (found.schema, found.to_pydict()) == (schema, expected)


def test_numbers_that_would_change_are_an_error() -> None:
    batch = pa.record_batch({"a": [2**53 + 1]})
    with pytest.raises(pa.ArrowInvalid, match="9007199254740993"):
        conform(batch, pa.schema([("a", FLOAT)]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (WHOLE, pa.uint64()),
        (pa.timestamp("us"), pa.timestamp("ns")),
        (pa.decimal128(2, 1), WHOLE),
        (pa.list_(pa.timestamp("s")), pa.list_(pa.timestamp("ms"))),
        (pa.struct([("x", pa.uint64())]), pa.struct([("x", pa.int8())])),
    ],
)
def test_types_of_which_some_values_would_not_survive(one: pa.DataType, other: pa.DataType) -> None:
    """Readers take the mapped columns alone: another's clash would end a job at its last stage."""
    with pytest.raises(DataError, match=r"another type.*write the files with one schema"):
        unified({"a": one}, {"a": other}, end=".parquet")
    schema = unified({"a": one}, {"a": other}, end=".jsonl")
    assert is_json_text(schema.field("a"))
