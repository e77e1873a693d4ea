from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.corpora import reading
from raysae.corpora.reading import read_range, row_groups

ROWS, GROUP = 100, 30


def written() -> pa.BufferReader:
    sink = io.BytesIO()
    table = pa.table({"a": list(range(ROWS)), "b": [str(i) for i in range(ROWS)]})
    pq.write_table(table, sink, row_group_size=GROUP)
    return pa.BufferReader(sink.getvalue())


@given(st.integers(0, ROWS), st.integers(0, ROWS), st.integers(1, 40))
def test_a_range_is_its_rows(a: int, b: int, rows_at_once: int) -> None:
    start, stop = sorted((a, b))
    schema = pa.schema([("a", pa.int64()), ("missing", pa.string())])
    with pq.ParquetFile(written()) as file:
        batches = list(read_range(file, start, stop, schema, rows_at_once))
    table = pa.Table.from_batches(batches, schema)
    assert table["a"].to_pylist() == list(range(start, stop))
    assert table["missing"].null_count == stop - start
    assert all(batch.num_rows <= rows_at_once for batch in batches)


@given(st.integers(0, ROWS), st.integers(0, ROWS))
def test_row_groups_are_those_with_a_row_of_the_range(a: int, b: int) -> None:
    start, stop = sorted((a, b))
    wanted = sorted({row // GROUP for row in range(start, stop)})
    groups, first_row = row_groups(pq.read_metadata(written()), start, stop)
    assert groups == wanted or start == stop
    assert not wanted or first_row == wanted[0] * GROUP


def test_only_the_wanted_columns_count() -> None:
    metadata = pq.read_metadata(written())
    sizes = [reading._compressed_bytes(metadata, [0, 1], names) for names in (["a"], ["b"], "ab")]
    assert sizes[0] > 0
    assert sizes[0] + sizes[1] == sizes[2]
    assert reading._compressed_bytes(metadata, [], ["a"]) == 0


def test_the_fetcher_follows_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "fetch_hub", lambda uri: f"hub {uri}")
    monkeypatch.setattr(reading, "fetch_object", lambda uri: f"object {uri}")
    assert reading.fetcher("hf://datasets/o/n@c/x") == "hub hf://datasets/o/n@c/x"
    assert reading.fetcher("gs://b/hf://x") == "object gs://b/hf://x"
