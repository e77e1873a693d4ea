from __future__ import annotations

from pathlib import Path

import pytest

from raysae.corpora import CorpusSettings, builtin_noisy_truth, known_corruption, open_corpus
from raysae.corpora.builtin import builtin_directory
from raysae.errors import DataError


def test_truth_has_one_row_per_row_of_the_noisy_corpus() -> None:
    assert (
        builtin_noisy_truth().num_rows == open_corpus(CorpusSettings("builtin-noisy")).snapshot.rows
    )


def test_a_missing_corpus_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("raysae.corpora.builtin._DATA", tmp_path)
    with pytest.raises(DataError, match=r"builtin-noisy-truth.*install"):
        builtin_noisy_truth()
    with pytest.raises(DataError, match="builtin is missing"):
        builtin_directory("builtin")


def test_known_corruption_leaves_intact_rows_out() -> None:
    kinds = known_corruption("builtin-noisy")
    truth = builtin_noisy_truth().to_pylist()
    assert kinds == {row["row"]: row["kind"] for row in truth if row["kind"] != "clean"}
    assert 0 < len(kinds) < len(truth)
    assert known_corruption("builtin") == {}
    assert known_corruption("align-anything") == {}


def test_truth_numbers_rows_as_the_snapshot_does() -> None:
    snapshot = open_corpus(CorpusSettings("builtin-noisy")).snapshot
    for row in builtin_noisy_truth().to_pylist():
        file_index, row_in_file = snapshot.locate(row["row"])
        assert (snapshot.files[file_index].name, row_in_file) == (row["file"], row["row_in_file"])
