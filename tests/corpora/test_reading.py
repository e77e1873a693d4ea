from __future__ import annotations

import io
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.corpora import CorpusFile, reading
from raysae.corpora.conform import plain
from raysae.corpora.contents import contents_reader
from raysae.corpora.learned import Schemas
from raysae.corpora.listing import list_local
from raysae.corpora.reading import read_range, read_rows, row_groups
from raysae.errors import DataError
from tests.corpora.tables import (
    DICTIONARY_COLUMNS,
    PLAIN_COLUMNS,
    VIEW_COLUMNS,
    WRITERS,
    parquet_file,
    tables,
)

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


def local_file(path: Path) -> tuple[CorpusFile, pa.Schema]:
    """Return a file as a snapshot has it, and its columns."""
    (listed,) = list_local(path, "x").files
    contents = contents_reader(list_local(path, "x"), Schemas())(listed)
    stamps = listed.mtime_ns, listed.ctime_ns
    return CorpusFile(
        str(path), listed.name, listed.size, "f", contents.rows, *stamps, contents.places
    ), contents.schema


@settings(max_examples=100)
@given(
    table=tables([*PLAIN_COLUMNS, *VIEW_COLUMNS, *DICTIONARY_COLUMNS]),
    end=st.sampled_from([".parquet", ".arrow", ".feather"]),
    ends=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    rows_at_once=st.integers(1, 9),
)
def test_a_range_of_a_file_is_a_slice(
    table: pa.Table, end: str, ends: tuple[int, int], rows_at_once: int
) -> None:
    start, stop = sorted(min(end, table.num_rows) for end in ends)
    with TemporaryDirectory() as directory:
        path = Path(directory) / f"a{end}"
        path.write_bytes(WRITERS[end](table))
        file, schema = local_file(path)
        assert file.rows == table.num_rows
        assert end == ".parquet" or schema == plain(table.schema)
        batches = list(read_rows(file, start, stop, schema, rows_at_once))
        assert all(batch.num_rows <= rows_at_once for batch in batches)
        assert pa.Table.from_batches(batches, schema).to_pylist() == table.to_pylist()[start:stop]


@pytest.mark.parametrize("end", WRITERS)
def test_columns_that_a_file_lacks_are_null(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"a{end}"
    path.write_bytes(WRITERS[end](pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})))
    file, _ = local_file(path)
    schema = pa.schema([("c", pa.list_(pa.string())), ("a", pa.float64())])
    (batch,) = read_rows(file, 1, 3, schema, 64)
    assert batch.schema == schema
    assert batch.to_pydict() == {"c": [None, None], "a": [2.0, 3.0]}
    (batch,) = read_rows(file, 1, 3, schema.remove(1), 64)
    assert batch.to_pydict() == {"c": [None, None]}


@pytest.mark.parametrize("end", WRITERS)
def test_a_file_that_is_written_meanwhile_is_named(tmp_path: Path, end: str) -> None:
    """Its rows so far are those that it had."""
    table = pa.table({"a": list(range(300))})
    path = tmp_path / f"a{end}"
    path.write_bytes(WRITERS[end](table))
    file, schema = local_file(path)
    batches = read_rows(file, 0, 300, schema, 5)
    first = next(batches)
    with path.open("r+b") as writing:
        writing.write(bytes(10))
    os.utime(path, ns=(1, 1))  # it may all have been in one tick
    assert first["a"].to_pylist() == list(range(first.num_rows))
    with pytest.raises(DataError, match=rf"a\{end} changed since the job began"):
        list(batches)


def test_views_in_parquet_can_be_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    views = pa.table({"a": pa.array(["x", None, "z"], pa.string_view())})
    path.write_bytes(parquet_file(views))
    file, schema = local_file(path)
    (batch,) = read_rows(file, 0, 3, schema, 64)
    assert batch.take(pa.array([2, 0]))["a"].to_pylist() == ["z", "x"]
