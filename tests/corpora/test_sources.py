from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.corpora import CorpusSettings, corpus_columns, open_corpus, open_subset
from raysae.corpora.columns import ColumnMap
from raysae.corpora.sources import SOURCES
from raysae.errors import DataError, SettingsError
from raysae.sample import Sample
from tests.corpora.rows import image_bytes, row, write_rows


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (CorpusSettings("imagenet"), "name: .*imagenet"),
        (CorpusSettings("align-anything"), "path: "),
        (CorpusSettings("align-anything", path="/nowhere"), "path: /nowhere does not exist"),
        (CorpusSettings("builtin", path="somewhere"), "path: .*somewhere"),
        (CorpusSettings("builtin", max_rows=-1), "max_rows: .*-1"),
        (CorpusSettings("rlaif-v"), "path: "),
        (CorpusSettings("spa-vl"), "path: "),
        (CorpusSettings("/data/mine"), "name: there is no corpus.* as --.*corpus.path"),
        (CorpusSettings("generic", path="/nowhere"), "columns: names no question"),
        (CorpusSettings("generic", columns=ColumnMap(question="q")), "path: .*'generic'"),
        (CorpusSettings("rlaif-v", configuration="x"), "configuration: .*'rlaif-v' has none"),
        (CorpusSettings("builtin", configuration="text-to-text"), "configuration: .*none"),
        (CorpusSettings("align-anything", configuration="x"), "configuration: .*'x'"),
        (
            CorpusSettings("spa-vl", columns=ColumnMap(question="q")),
            "name: only the corpus 'generic' takes columns, but 'spa-vl'",
        ),
        (
            CorpusSettings("builtin", columns=ColumnMap(without_image=True)),
            "name: only the corpus 'generic' takes columns, but 'builtin'",
        ),
    ],
)
@pytest.mark.parametrize("setting", ["corpus", "sae_corpus"])
def test_impossible_settings_are_named(settings: CorpusSettings, named: str, setting: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{setting}\.{named}"):
        open_corpus(settings, setting)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(SettingsError) as caught:
        open_corpus(CorpusSettings("x"))
    assert all(name in str(caught.value) for name in SOURCES)


@pytest.mark.parametrize("name", ["builtin", "builtin-noisy"])
def test_shipped_corpora_open(name: str) -> None:
    corpus = open_corpus(CorpusSettings(name, max_rows=3))
    assert corpus.snapshot.name == name
    assert corpus.snapshot.rows == 3


def test_a_subset_is_read_as_its_corpus_is(tmp_path: Path) -> None:
    write_rows(tmp_path / "part-0.parquet", [row(), row()])
    subset = open_subset(CorpusSettings("builtin", max_rows=1), tmp_path)
    assert subset.snapshot.name == "builtin"
    assert subset.snapshot.rows == 2
    with pytest.raises(SettingsError, match="imagenet"):
        open_subset(CorpusSettings("imagenet"), tmp_path)


def test_known_data_sets_read_their_own_columns(tmp_path: Path) -> None:
    values = {"question": "What?", "image": image_bytes(), "chosen": "A.", "rejected": "B."}
    pq.write_table(pa.Table.from_pylist([values]), tmp_path / "train.parquet")
    for name in ("rlaif-v", "spa-vl"):
        (sample,) = open_corpus(CorpusSettings(name, str(tmp_path))).all_samples()
        assert isinstance(sample, Sample)
        assert (sample.chosen, sample.rejected) == ("A.", "B.")
        assert (sample.images, sample.messages[0].text) == ((image_bytes(),), "What?")


@pytest.mark.parametrize("name", ["align-anything", "rlaif-v", "spa-vl"])
def test_a_missing_column_is_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"prompt": ["What?"]}), tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match=r"a\.parquet.*'question'.*its columns are prompt.*corpus generic"
    ):
        open_corpus(CorpusSettings(name, str(tmp_path)))


def test_columns_can_be_looked_at_before_they_are_mapped(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["What?"], "n": [1]}), tmp_path / "a.parquet")
    schema = corpus_columns(CorpusSettings("generic", str(tmp_path)))
    assert schema.names == ["prompt", "n"]


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "data/train-0.parquet", [row()])
    settings = CorpusSettings("align-anything", str(tmp_path), files="train*")
    with pytest.raises(DataError, match=r"^sae_corpus\.files: .*'train\*'.*data/train-0\.parquet"):
        open_corpus(settings, "sae_corpus")


def test_a_subset_looks_for_no_pattern(tmp_path: Path) -> None:
    write_rows(tmp_path / "data/part.parquet", [row()])
    for files in ("", "train/*"):
        settings = CorpusSettings("align-anything", "/nowhere", files=files)
        assert open_subset(settings, tmp_path).snapshot.rows == 1


def test_an_array_of_rows_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[{"q": "?"}]\n')
    with pytest.raises(DataError, match="write one object a line"):
        corpus_columns(CorpusSettings("generic", str(tmp_path)))


def test_the_field_of_the_settings_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    wrong = CorpusSettings("generic", str(tmp_path), columns=ColumnMap(question="zzz"))
    with pytest.raises(DataError, match=r"correct --sae_corpus\.columns\.$"):
        open_corpus(wrong, "sae_corpus")
    with pytest.raises(DataError, match=r"--sae_corpus generic --sae_corpus\.columns\.$"):
        open_corpus(CorpusSettings("spa-vl", str(tmp_path), files="*"), "sae_corpus")
