from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysae.artifacts import Publication, ShardSpec
from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.errors import DataError
from raysae.sample import Sample
from raysae.stages.select import _write_rows
from tests.corpora.rows import IMAGE_TYPE, SCHEMA, row, write_rows
from tests.storages import at


def opened(path: Path) -> Corpus:
    return open_corpus(CorpusSettings("align-anything", str(path)))


def questions(table: pa.Table) -> list[str]:
    return [str(question) for question in table.column("question").to_pylist()]


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A file of 200 rows in row groups of 70."""
    directory = tmp_path_factory.mktemp("grouped")
    rows = [row(question=f"q{i}") for i in range(200)]
    write_rows(directory / "a.parquet", rows, row_group_size=70)
    return opened(directory)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 200), st.integers(0, 200))
def test_any_range_is_read_exactly(grouped: Corpus, a: int, b: int) -> None:
    start, stop = sorted((a, b))
    table = grouped.read(0, start, stop)
    assert questions(table) == [f"q{i}" for i in range(start, stop)]
    assert table.schema == grouped.schema


def test_untouched_row_groups_are_not_read(grouped: Corpus, tmp_path: Path) -> None:
    """Damage in the first row group does not disturb a read of the last."""
    source = Path(grouped.snapshot.files[0].uri)
    copy = tmp_path / "a.parquet"
    data = bytearray(source.read_bytes())
    last = pq.ParquetFile(source).metadata.row_group(2).column(0)
    first_of_last = last.dictionary_page_offset or last.data_page_offset
    data[8 : first_of_last - 8] = bytes(first_of_last - 16)
    copy.write_bytes(data)
    corpus = opened(copy)
    assert questions(corpus.read(0, 140, 200)) == [f"q{i}" for i in range(140, 200)]
    with pytest.raises(DataError, match=r"a\.parquet"):
        corpus.read(0, 0, 10)


def test_a_large_row_group_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "a.parquet", [row(question=f"q{i}") for i in range(300)])
    corpus, decoded = opened(tmp_path), []
    iterate = pq.ParquetFile.iter_batches

    def counted(self: pq.ParquetFile, *args: Any, **options: Any) -> Any:
        for batch in iterate(self, *args, **options):
            decoded.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    assert [sample.ordinal for sample in corpus.all_samples()] == list(range(300))
    assert sum(decoded) == 300
    decoded.clear()
    (name,) = _write_rows(corpus, np.array([3, 170, 299]), Publication(at(tmp_path)))
    assert sum(decoded) == 300
    kept = pq.read_table(tmp_path / name)
    assert questions(kept) == ["q3", "q170", "q299"]
    assert kept.schema == corpus.schema


def test_batches_are_the_rows_that_are_used(grouped: Corpus) -> None:
    path = grouped.snapshot.files[0].uri
    corpus = open_corpus(CorpusSettings("align-anything", path, max_rows=150))
    batches = list(corpus.batches(0, ["question"], rows=40))
    assert questions(pa.Table.from_batches(batches)) == [f"q{i}" for i in range(150)]
    assert max(batch.num_rows for batch in batches) <= 40


def test_columns_can_be_chosen(grouped: Corpus) -> None:
    table = grouped.read(0, 3, 5, ["critique", "question"])
    assert table.column_names == ["critique", "question"]
    assert questions(table) == ["q3", "q4"]


def test_a_shard_is_read_with_its_ordinals(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row(), row()])
    write_rows(tmp_path / "b.parquet", [row(question=f"b{i}") for i in range(4)])
    samples = list(opened(tmp_path).read_samples(ShardSpec("shard-00001", 1, 1, 3, 3)))
    assert [sample.ordinal for sample in samples] == [3, 4]
    texts = [sample.messages[0].text for sample in samples if isinstance(sample, Sample)]
    assert texts == ["b1", "b2"]


def test_other_columns_are_kept_losslessly(tmp_path: Path) -> None:
    rows = [row(critique=None), row(critique="x")]
    schema = SCHEMA.with_metadata({"huggingface": "{}"})
    write_rows(tmp_path / "a.parquet", rows, schema)
    corpus = opened(tmp_path)
    table = corpus.read(0, 0, 2)
    assert table.to_pylist() == rows
    assert table.schema.metadata == {b"huggingface": b"{}"}


def test_files_are_brought_to_one_schema(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    narrow = SCHEMA.set(4, pa.field("overall_response", pa.int8())).remove(5)
    extra = narrow.append(pa.field("extra", pa.float32()))
    values = {name: value for name, value in row().items() if name != "critique"}
    write_rows(tmp_path / "b.parquet", [{**values, "extra": 1.5}], extra)
    corpus = opened(tmp_path)
    assert corpus.schema.names == [*SCHEMA.names, "extra"]
    assert corpus.schema.field("overall_response").type == pa.int64()
    first, second = corpus.read(0, 0, 1), corpus.read(1, 0, 1)
    assert first.schema == second.schema == corpus.schema
    assert first.column("extra").to_pylist() == [None]
    assert second.column("critique").to_pylist() == [None]
    assert second.column("extra").to_pylist() == [1.5]


def test_files_that_cannot_be_brought_together_are_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    plain = SCHEMA.set(1, pa.field("image", pa.binary()))
    write_rows(tmp_path / "b.parquet", [{**row(), "image": b"x"}], plain)
    assert SCHEMA.field("image").type == IMAGE_TYPE
    with pytest.raises(DataError, match=r"b\.parquet.*one schema"):
        opened(tmp_path)


def test_a_corpus_pickles(grouped: Corpus) -> None:
    copy = pickle.loads(pickle.dumps(grouped))
    shard = ShardSpec("shard-00000", 0, 0, 3, 0)
    assert list(copy.read_samples(shard)) == list(grouped.read_samples(shard))
    assert copy.snapshot == grouped.snapshot


def test_a_file_that_changed_or_vanished_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [row(), row()])
    corpus = opened(tmp_path)
    write_rows(path, [row()])
    with pytest.raises(DataError, match=r"a\.parquet.*changed"):
        corpus.read(0, 0, 2)
    # As many rows, but others.
    write_rows(path, [row(question="Quite another question?"), row()])
    with pytest.raises(DataError, match=r"a\.parquet.*changed"):
        corpus.read(0, 0, 2)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.parquet"):
        corpus.read(0, 0, 1)
