from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.corpora.arrow_rows import learn_arrow, read_arrow
from raysae.corpora.columns import ColumnMap
from raysae.corpora.conform import plain
from raysae.corpora.learned import Contents
from raysae.sample import Sample
from tests.corpora.tables import (
    ARROW_WRITERS,
    DICTIONARY_COLUMNS,
    PICTURE,
    PLAIN_COLUMNS,
    VIEW_COLUMNS,
    ipc_file,
    saved,
    stream,
    tables,
)

COLUMNS = [*PLAIN_COLUMNS, *VIEW_COLUMNS, *DICTIONARY_COLUMNS]

BATCHES = pa.Table.from_batches(
    [
        pa.record_batch({"a": [10 * n, 10 * n + 1], "b": [f"text {n}", None]}, names=None)
        for n in range(4)
    ]
)
CODED = BATCHES.set_column(1, "b", BATCHES["b"].dictionary_encode())


def learn(data: bytes) -> Contents:
    return learn_arrow(pa.PythonFile(io.BytesIO(data), "r"))


def read(data: bytes, contents: Contents, rows: range, rows_at_once: int = 64) -> pa.Table:
    source = pa.PythonFile(io.BytesIO(data), "r")
    pieces = list(read_arrow(source, contents.places, rows, contents.schema, rows_at_once))
    assert all(0 < piece.num_rows <= rows_at_once for piece in pieces)
    return pa.Table.from_batches(pieces, contents.schema)


@settings(max_examples=150)
@given(
    table=tables(COLUMNS),
    writer=st.sampled_from(list(ARROW_WRITERS)),
    ends=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    rows_at_once=st.integers(1, 9),
)
def test_a_range_is_a_slice(
    table: pa.Table, writer: str, ends: tuple[int, int], rows_at_once: int
) -> None:
    data = ARROW_WRITERS[writer](table)
    contents = learn(data)
    assert contents.rows == table.num_rows
    assert contents.schema == plain(table.schema)
    start, stop = sorted(min(end, table.num_rows) for end in ends)
    found = read(data, contents, range(start, stop), rows_at_once)
    assert found.schema == contents.schema
    assert found.to_pylist() == table.to_pylist()[start:stop]


@pytest.mark.parametrize("deltas", [False, True])
def test_dictionaries_that_change_on_the_way_are_followed(deltas: bool) -> None:
    coded = pa.dictionary(pa.int8(), pa.string())
    words = [["a"], ["a", "b"], ["b", "c"] if not deltas else ["a", "b", "c"]]
    parts = [
        pa.DictionaryArray.from_arrays(pa.array(range(len(part)), pa.int8()), part)
        for part in words
    ]
    nested = [
        pa.array([[word] for word in part], pa.list_(pa.field("item", coded))) for part in words
    ]
    table = pa.table({"flat": pa.chunked_array(parts), "nested": pa.chunked_array(nested)})
    data = stream(table, emit_dictionary_deltas=deltas)
    contents, values = learn(data), table.to_pylist()
    for start in range(table.num_rows):
        rows = range(start, table.num_rows)
        assert read(data, contents, rows).to_pylist() == values[start:]
        assert read(data, contents, range(start, start + 1)).to_pylist() == [values[start]]


def test_what_lies_before_and_after_a_range_is_not_read() -> None:
    """Damage there does not disturb it."""
    data = bytearray(stream(BATCHES))
    contents = learn(bytes(data))
    places = np.frombuffer(contents.places, "<i8").reshape(-1, 2)
    first, _, third, last = places[:, 1]
    data[first:third] = bytes(third - first)
    data[last:] = bytes(len(data) - last)
    assert read(bytes(data), contents, range(4, 6)) == BATCHES.slice(4, 2)
    for rows in (range(4), range(3, 5), range(5, 7)):
        with pytest.raises(pa.ArrowException):
            read(bytes(data), contents, rows)


def test_rows_are_copies(tmp_path: Path) -> None:
    """A slice would hold the whole batch, and of a mapped file it would be what comes there."""
    path = tmp_path / "a.arrow"
    path.write_bytes(stream(pa.table({"a": [b"x" * 1000] * 50})))
    contents = learn(path.read_bytes())
    with pa.memory_map(str(path)) as source:
        (batch,) = read_arrow(source, contents.places, range(7, 9), contents.schema, 64)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert batch.to_pylist() == [{"a": b"x" * 1000}] * 2
    assert batch.get_total_buffer_size() < 5000


@pytest.mark.parametrize("table", [BATCHES, CODED], ids=["plain", "coded"])
@pytest.mark.parametrize("write", [stream, ipc_file])
def test_a_file_that_is_cut_off_anywhere_is_damaged(table: pa.Table, write: type[stream]) -> None:
    data = write(table)
    assert learn(data).rows == table.num_rows
    for size in range(len(data)):
        with pytest.raises((pa.ArrowException, OSError)):
            learn(data[:size])


@pytest.mark.parametrize("table", [BATCHES, CODED], ids=["plain", "coded"])
def test_what_follows_the_end_is_not_passed_over(table: pa.Table) -> None:
    data = stream(table)
    with pytest.raises(pa.ArrowInvalid, match="more bytes follow the stream's end"):
        learn(data + data)


@pytest.mark.parametrize("write", [stream, ipc_file])
@pytest.mark.parametrize("table", [BATCHES.schema.empty_table(), BATCHES.slice(0, 0)])
def test_a_file_may_have_no_row(table: pa.Table, write: type[stream]) -> None:
    contents = learn(write(table))
    assert (contents.rows, contents.schema) == (0, BATCHES.schema)
    assert read(write(table), contents, range(0)).num_rows == 0


def test_wrong_offsets_are_found() -> None:
    """Whoever followed them would read foreign memory."""
    texts = pa.table({"a": ["x" * 8] * 40})
    data = stream(texts)
    offsets = np.arange(41, dtype="<i4") * 8
    place = data.index(offsets.tobytes())
    offsets[20] = 2**30
    damaged = data[:place] + offsets.tobytes() + data[place + offsets.nbytes :]
    with pytest.raises(pa.ArrowInvalid):
        learn(damaged)


@pytest.mark.parametrize(
    "type_",
    [
        pa.run_end_encoded(pa.int32(), pa.string()),
        pa.struct([]),
        pa.month_day_nano_interval(),
        pa.dense_union([pa.field("x", pa.string())]),
    ],
    ids=str,
)
def test_types_that_no_subset_could_have_are_refused_at_once(type_: pa.DataType) -> None:
    with pytest.raises(pa.ArrowException, match=r"Parquet|union"):
        learn(stream(pa.table({"a": pa.nulls(2, type_)})))


@pytest.mark.parametrize("data", [b"", b"ARROW1", b"FEA1" + bytes(20), b"PAR1", b'{"a": 1}\n'])
def test_what_is_no_arrow_file_is_an_error(data: bytes) -> None:
    with pytest.raises((pa.ArrowException, OSError)):
        learn(data)


def opened(path: Path, files: str = "") -> Corpus:
    columns = ColumnMap(question="q", image="image", chosen="chat")
    return open_corpus(CorpusSettings("generic", str(path), files=files, columns=columns))


def check_rows(corpus: Corpus, dataset: Any) -> None:
    """See that every range of every file is the data set's."""
    assert corpus.snapshot.rows == dataset.num_rows
    whole = dataset.data.table.to_pylist()
    for index, file in enumerate(corpus.snapshot.files):
        first = corpus.snapshot.first_ordinal(index)
        for start in range(0, file.rows, 3):
            for stop in range(start, file.rows + 1, 4):
                table = corpus.read(index, start, stop)
                assert table.schema == corpus.schema
                assert table.to_pylist() == whole[first + start : first + stop]
    samples = [item for item in corpus.all_samples() if isinstance(item, Sample)]
    assert [sample.messages[-1].text for sample in samples] == [row["q"] for row in whole]
    assert {sample.images for sample in samples} == {(PICTURE,)}


def test_a_data_set_saved_by_datasets_is_a_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "DEFAULT_MAX_BATCH_SIZE", 4)
    dataset = saved(23)
    dataset.save_to_disk(tmp_path / "one", num_shards=3)
    batches = [len(file.places) // 16 for file in opened(tmp_path / "one").snapshot.files]
    assert batches == [2, 2, 2]
    check_rows(opened(tmp_path / "one"), dataset)
    (tmp_path / "one/cache-0a1b.arrow").write_bytes(b"what map computed")
    (tmp_path / "one/tmp5x2").write_bytes(b"what it was writing")
    check_rows(opened(tmp_path / "one"), dataset)


def test_a_saved_dictionary_of_data_sets_is_a_corpus(tmp_path: Path) -> None:
    import datasets

    parts = {"train": saved(5), "test": saved(4, first=5)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path)
    check_rows(opened(tmp_path, "train/*"), parts["train"])
    both = datasets.concatenate_datasets([parts["test"], parts["train"]])  # by their names
    check_rows(opened(tmp_path), both)
    schema = opened(tmp_path).schema
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"].keys() == {*schema.names}
