from __future__ import annotations

import base64
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysae.artifacts import Publication, ShardSpec
from raysae.corpora import Corpus, CorpusSettings, open_corpus, open_subset
from raysae.corpora.columns import ColumnMap
from raysae.corpora.conform import BROKEN, is_json_text
from raysae.errors import DataError
from raysae.sample import Rejection, Sample
from raysae.stages.select import _write_rows
from tests.corpora.rows import IMAGE_TYPE, SCHEMA, image_bytes, row, write_rows
from tests.corpora.tables import ARROW_WRITERS, saved, stream
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


MAP = ColumnMap(question="q", image="i", chosen="c", rejected="r", without_image=True)
PICTURE = base64.b64encode(image_bytes(size=(8, 8))).decode()
LINES = [
    {"q": "one", "c": "a", "r": "b", "i": PICTURE, "meta": {"x": 1}, "big": 2**53 + 1},
    {"q": "two", "c": "a", "r": "b", "i": [PICTURE, PICTURE], "extra": [{"x": "ü"}], "big": 0.5},
    None,
    {"q": [{"role": "user", "content": "three"}], "c": "a", "r": "b", "i": None, "big": None},
    {"q": "four", "c": "a", "r": "a", "i": None},
    {"q": "five", "c": "a", "r": "b", "meta": {}, "big": 2**70, "nothing": {}},
    {"q": "six", "c": "a", "r": "b", "i": None, "meta": None, "extra": []},
]


def write_lines(directory: Path) -> Path:
    """Write a corpus of two files of JSON lines with mixed columns and a broken line."""
    directory.mkdir()
    lines = ["{broken" if row is None else json.dumps(row) for row in LINES]
    (directory / "a.jsonl").write_text("\n".join(lines[:4]))
    (directory / "b.jsonl").write_text("\n".join(lines[4:]) + "\n")
    return directory


def subset_of(corpus: Corpus, kept: list[int], directory: Path) -> Corpus:
    """Write some rows as the stage `select` does, and open them."""
    directory.mkdir()
    names = _write_rows(corpus, np.array(kept), Publication(at(directory)))
    for name in names:
        assert pq.read_schema(directory / name) == corpus.schema
    name = corpus.snapshot.name
    columns = MAP if name == "generic" else ColumnMap()
    return open_subset(CorpusSettings(name, columns=columns), directory / "data")


def contents_of(corpus: Corpus, ordinals: list[int]) -> list[tuple[Any, ...]]:
    samples = [item for item in corpus.all_samples() if item.ordinal in ordinals]
    assert not any(isinstance(item, Rejection) for item in samples)
    return [
        (item.messages, item.images, item.chosen, item.rejected)
        for item in samples
        if isinstance(item, Sample)
    ]


def test_a_subset_of_json_lines_has_the_same_samples(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "corpus")
    corpus = open_corpus(CorpusSettings("generic", str(path), columns=MAP))
    items = list(corpus.all_samples())
    reasons = {item.ordinal: item.reason for item in items if isinstance(item, Rejection)}
    assert reasons == {2: "broken-json", 4: "equal-answers"}
    kept = [0, 1, 3, 5, 6]
    subset = subset_of(corpus, kept, tmp_path / "subset")
    assert contents_of(subset, [0, 1, 2, 3, 4]) == contents_of(corpus, kept)
    assert BROKEN not in subset.schema.names
    big = [value for i in (0, 1) for value in subset.read(i, 0, 3 - i)["big"].to_pylist()]
    assert is_json_text(subset.schema.field("big"))
    assert [big_ and json.loads(big_) for big_ in big] == [2**53 + 1, 0.5, None, 2**70, None]


@pytest.mark.parametrize("writer", ARROW_WRITERS)
def test_a_subset_of_arrow_has_the_same_samples(tmp_path: Path, writer: str) -> None:
    rows = [row(question=f"q{i}", critique=f"ü{i % 2}") for i in range(7)]
    table = pa.Table.from_pylist(rows, SCHEMA)
    coded = table.set_column(5, "critique", table["critique"].dictionary_encode())
    views = coded.set_column(2, "response_1", table["response_1"].cast(pa.string_view()))
    path = tmp_path / "a.arrow"
    path.write_bytes(ARROW_WRITERS[writer](views))
    corpus = open_corpus(CorpusSettings("align-anything", str(path)))
    subset = subset_of(corpus, [1, 2, 6], tmp_path / "subset")
    assert contents_of(subset, [0, 1, 2]) == contents_of(corpus, [1, 2, 6])
    assert subset.read(0, 0, 3).to_pylist() == table.take([1, 2, 6]).to_pylist()


def loaded(directory: Path, cache: Path) -> Any:
    """Open the data files of a subset as other programs do."""
    import datasets

    files = sorted(map(str, directory.iterdir()))
    return datasets.load_dataset("parquet", data_files=files, cache_dir=str(cache), split="train")


def test_datasets_opens_a_subset_of_json_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "corpus")
    corpus = open_corpus(CorpusSettings("generic", str(path), columns=MAP))
    subset_of(corpus, [0, 1, 3, 5, 6], tmp_path / "subset")
    found = loaded(tmp_path / "subset/data", tmp_path / "cache")
    assert (found.column_names, found.num_rows) == (corpus.schema.names, 5)
    assert json.loads(found[0]["q"]) == "one"


def test_datasets_opens_a_subset_of_what_it_saved(tmp_path: Path) -> None:
    dataset = saved(6)
    dataset.save_to_disk(tmp_path / "corpus", num_shards=2)
    columns = replace(MAP, question="q", image="image", chosen="chat", rejected="")
    settings = CorpusSettings("generic", str(tmp_path / "corpus"), columns=columns)
    names = _write_rows(open_corpus(settings), np.array([1, 4]), Publication(at(tmp_path)))
    found = loaded((tmp_path / names[0]).parent, tmp_path / "cache")
    assert found.features == dataset.features
    assert found.to_list() == dataset.select([1, 4]).to_list()


def test_corpora_with_places_pickle(tmp_path: Path) -> None:
    lines = open_corpus(
        CorpusSettings("generic", str(write_lines(tmp_path / "corpus")), columns=MAP)
    )
    (tmp_path / "a.arrow").write_bytes(stream(pa.Table.from_pylist([row(), row()], SCHEMA)))
    for corpus in (lines, opened(tmp_path / "a.arrow")):
        copy = pickle.loads(pickle.dumps(corpus, protocol=5))
        assert list(copy.all_samples()) == list(corpus.all_samples())
        assert (copy.snapshot, copy.schema) == (corpus.snapshot, corpus.schema)
        assert [file.places for file in copy.snapshot.files] == [
            file.places for file in corpus.snapshot.files
        ]


@pytest.mark.parametrize("max_rows", [1, 3, 4, 5, 7, 100])
def test_the_first_rows_of_lines_are_used(tmp_path: Path, max_rows: int) -> None:
    path = write_lines(tmp_path / "corpus")
    corpus = open_corpus(CorpusSettings("generic", str(path), max_rows, columns=MAP))
    assert [item.ordinal for item in corpus.all_samples()] == list(range(min(max_rows, 7)))
    assert corpus.snapshot.rows == min(max_rows, 7)


def test_a_number_that_does_not_fit_the_other_files_is_named(tmp_path: Path) -> None:
    whole, broken = SCHEMA.append(pa.field("n", pa.int64())), pa.field("n", pa.float64())
    write_rows(tmp_path / "a.parquet", [{**row(), "n": 2**53 + 1}], whole)
    write_rows(tmp_path / "b.parquet", [{**row(), "n": 0.5}], SCHEMA.append(broken))
    corpus = opened(tmp_path)
    assert corpus.read(1, 0, 1)["n"].to_pylist() == [0.5]
    with pytest.raises(DataError, match=r"a\.parquet: the column 'n' .*double.*one schema"):
        corpus.read(0, 0, 1)
