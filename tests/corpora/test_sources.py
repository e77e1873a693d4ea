from __future__ import annotations

from pathlib import Path

import pytest

from raysae.corpora import CorpusSettings, open_corpus, open_subset
from raysae.corpora.sources import SOURCES
from raysae.errors import SettingsError
from tests.corpora.rows import row, write_rows


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (CorpusSettings("imagenet"), "name: .*imagenet"),
        (CorpusSettings("align-anything"), "path: "),
        (CorpusSettings("align-anything", path="/nowhere"), "path: /nowhere does not exist"),
        (CorpusSettings("builtin", path="somewhere"), "path: .*somewhere"),
        (CorpusSettings("builtin", max_rows=-1), "max_rows: .*-1"),
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
