from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from raysae.corpora import known_corruption
from raysae.pipeline import make
from raysae.scoring import SCORERS, SelectionSettings
from raysae.stages.chain import Chain
from raysae.stages.report import _modality_health, _scorer_summaries, _truth
from tests.stages.chains import unfinished_files
from tests.stages.conftest import Made
from tests.storages import path_of

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def page(made: Made) -> str:
    return (path_of(made.chain.report.directory) / "report.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """Return what a reader sees, on one line."""
    without = re.sub(r"<(style|script).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", without).split())


def test_it_names_corpus_scorers_and_artifacts(made: Made, page: str) -> None:
    chain, text = made.chain, text_of(page)
    assert chain.settings.corpus.name in text
    for scorer in SCORERS:
        assert scorer in text
    for artifact in (chain.activations, chain.sae, chain.weights, chain.subset):
        assert artifact.id in page


def test_it_gives_the_counts(made: Made, page: str) -> None:
    text = text_of(page)
    assert re.search(r"\b48\b[^.]{0,40}\b96\b", text)
    tokens = made.chain.activations.metadata()["text_tokens"]
    assert f"{tokens:,}" in text


def test_it_compares_with_what_was_done_to_the_rows(made: Made, page: str) -> None:
    kinds = {kind for row, kind in known_corruption("builtin-noisy").items() if row < 96}
    assert kinds
    for kind in kinds:
        assert kind in text_of(page)


def test_it_needs_no_other_file(page: str) -> None:
    assert page.lstrip().lower().startswith("<!doctype html>")
    sources = re.findall(r"<(?:img|script|link|iframe)[^>]*?(?:src|href)=\"([^\"]*)\"", page)
    assert sources
    assert all(source.startswith("data:") for source in sources)


def test_it_is_finished(made: Made) -> None:
    report = made.chain.report
    assert report.is_finished()
    assert unfinished_files(path_of(report.directory)) == []


def test_a_cache_that_was_removed_is_not_made_again(made: Made, tmp_path: Path) -> None:
    root = shutil.copytree(path_of(made.chain.root), tmp_path / "storage")
    select = SelectionSettings(fraction=0.25)
    chain = Chain(replace(made.settings, storage=str(root), select=select))
    cache = chain.activations
    shutil.rmtree(path_of(cache.directory))
    assert make(chain, "reports") is not None
    assert not path_of(cache.directory).exists()
    page = (path_of(chain.report.directory) / "report.html").read_text(encoding="utf-8")
    assert cache.name in page
    assert f"{made.chain.activations.metadata()['text_tokens']:,}" in text_of(page)


def test_scorers_are_compared_on_the_rows_that_all_of_them_have() -> None:
    """Scores of two runs, which could use other rows."""

    def scored(ordinals: list[int]) -> pa.Table:
        n = len(ordinals)
        scores = [float(-ordinal) for ordinal in ordinals]
        counts = {"text_tokens": [2] * n, "image_tokens": [3] * n}
        return pa.table({"ordinal": ordinals, "score": scores, **counts})

    scores = {"union": scored([0, 1, 2, 3, 5]), "random": scored([0, 1, 3, 4, 5])}
    kinds = {3: "swapped", 4: "noise", 5: "swapped"}
    truth = _truth(scores, [0, 1, 2, 3, 5], {0, 2, 3}, kinds)
    assert {(row.scorer, row.kind, row.corrupted, row.intact) for row in truth.aucs} == {
        (scorer, kind, 2, 2) for scorer in scores for kind in ("any", "swapped")
    }
    assert {(one.kind, one.rows, one.kept) for one in truth.counts} == {
        ("intact", 3, 2),
        ("swapped", 2, 1),
    }
    summaries = _scorer_summaries(scores, "union", {0, 2, 3})
    assert [(one.scorer, one.rows) for one in summaries] == [("union", 5), ("random", 5)]


def test_a_modality_without_tokens_has_no_means() -> None:
    names = ("l0", "fvu", "alive_share", "dead_share", "dense_share")
    health = _modality_health("image", {"tokens": 0, **dict.fromkeys(names)})
    assert health.tokens == 0
    assert all(math.isnan(getattr(health, name)) for name in names)
