"""The shipped corpora hold what they promise."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysae.corpora import CorpusSettings, builtin_noisy_truth, known_corruption, open_corpus
from raysae.corpora.builtin import builtin_directory
from raysae.sample import Sample

COLUMNS = ["question", "image", "response_1", "response_2", "overall_response"]
SHARES = {
    "image-swapped": 0.15,
    "image-replaced": 0.05,
    "question-broken": 0.05,
    "answers-exchanged": 0.05,
}


def _files(name: str) -> list[Path]:
    return sorted(builtin_directory(name).glob("*.parquet"))


def _rows(name: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in _files(name)])


@pytest.fixture(scope="module")
def clean() -> pa.Table:
    return _rows("builtin")


@pytest.fixture(scope="module")
def noisy() -> pa.Table:
    return _rows("builtin-noisy")


@pytest.mark.parametrize("name", ["builtin", "builtin-noisy"])
def test_columns_and_rows(name: str) -> None:
    table = _rows(name)
    assert table.column_names == COLUMNS
    assert table.num_rows >= 1_500
    assert len(_files(name)) > 1, "one file would be one unit of failure"


def test_all_of_it_is_small() -> None:
    files = [f for n in ("builtin", "builtin-noisy", "builtin-noisy-truth") for f in _files(n)]
    assert sum(file.stat().st_size for file in files) <= 12 << 20


@pytest.mark.parametrize("name", ["builtin", "builtin-noisy"])
def test_every_row_is_usable(name: str) -> None:
    corpus = open_corpus(CorpusSettings(name))
    samples = list(corpus.all_samples())
    assert len(samples) == corpus.snapshot.rows
    assert all(isinstance(sample, Sample) for sample in samples)


def test_pictures_vary_in_size_and_encoding(clean: pa.Table) -> None:
    pictures = [Image.open(io.BytesIO(i["bytes"])) for i in clean["image"].to_pylist()]
    assert {picture.format for picture in pictures} == {"PNG", "JPEG", "WEBP"}
    assert len({picture.size for picture in pictures}) >= 5


def test_datasets_opens_it_with_pictures() -> None:
    files = [str(file) for file in _files("builtin")]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train")
    assert isinstance(loaded.features["image"], datasets.Image)
    assert loaded[0]["image"].width >= 64


def test_label_is_balanced_and_not_told_by_length(clean: pa.Table) -> None:
    rows = clean.to_pylist()
    better = [row[f"response_{row['overall_response']}"] for row in rows]
    worse = [row[f"response_{3 - row['overall_response']}"] for row in rows]
    first = np.mean([row["overall_response"] == 1 for row in rows])
    longer = np.mean(
        [(len(b) > len(w)) + (len(b) == len(w)) / 2 for b, w in zip(better, worse, strict=True)]
    )
    assert 0.45 < first < 0.55
    assert 0.4 < longer < 0.6


def test_noise_has_the_promised_shares(noisy: pa.Table) -> None:
    kinds = Counter(builtin_noisy_truth()["kind"].to_pylist())
    for kind, share in SHARES.items():
        assert kinds[kind] == pytest.approx(share * noisy.num_rows, abs=1)


def test_noise_is_where_the_truth_says(clean: pa.Table, noisy: pa.Table) -> None:
    kinds = known_corruption("builtin-noisy")
    changed: dict[str, set[str]] = {kind: set() for kind in ["clean", *SHARES]}
    for row, (before, after) in enumerate(zip(clean.to_pylist(), noisy.to_pylist(), strict=True)):
        kind = kinds.get(row, "clean")
        differing = {name for name in COLUMNS if _content(before[name]) != _content(after[name])}
        assert bool(differing) == (kind != "clean"), (row, kind, differing)
        changed[kind] |= differing
    assert changed["image-swapped"] == changed["image-replaced"] == {"image"}
    assert changed["question-broken"] == {"question"}
    assert changed["answers-exchanged"] == {"overall_response"}


def test_other_corpora_have_no_known_corruption() -> None:
    assert known_corruption("builtin") == {}


def _content(value: object) -> object:
    return value["bytes"] if isinstance(value, dict) else value
