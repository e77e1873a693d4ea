"""Too many bad rows, found out before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.errors import DataError
from raysae.pipeline import make
from raysae.settings import RunSettings
from raysae.stages import first_look
from raysae.stages.chain import Chain
from raysae.stages.first_look import look_first
from tests.corpora.rows import row, write_rows
from tests.stages.chains import small_settings
from tests.stages.test_careful import crashing_corpus


def corpus(directory: Path, good: int, bad: int) -> Corpus:
    rows = [row(question=f"What is {n}?") for n in range(good)]
    write_rows(directory / "a.parquet", [*rows, *[row(image=None)] * bad])
    return open_corpus(CorpusSettings("align-anything", str(directory)))


@pytest.mark.parametrize(
    ("good", "bad", "limit"), [(60, 4, 0.2), (0, 64, 1.0), (40, 0, 0.0), (52, 12, 0.2), (7, 3, 0.3)]
)
def test_a_corpus_within_the_limit_says_nothing(
    good: int, bad: int, limit: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    look_first("corpus", corpus(tmp_path, good, bad), limit)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("bad", "limit"), [(13, 0.2), (38, 0.2), (1, 0.005), (4, 0.01)])
def test_a_few_too_many_are_warned_of(
    bad: int, limit: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of 64 rows 20 % are 12.8. Rows of a run as one, the standard error is 6.4.
    look_first("corpus", corpus(tmp_path, 64 - bad, bad), limit)
    assert capsys.readouterr().out == (
        f"corpus: warning: {bad} of 64 rows looked at cannot be used (no-image {bad}), more than "
        f"run.max_rejected_fraction = {limit} allows; the job may stop for that\n"
    )


@pytest.mark.parametrize(("good", "bad", "limit"), [(25, 39, 0.2), (63, 1, 0.0), (0, 200, 0.3)])
def test_far_too_many_end_the_job(good: int, bad: int, limit: float, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^sae_corpus: \d+ of 64 rows looked at cannot be used"):
        look_first("sae_corpus", corpus(tmp_path, good, bad), limit)


def test_a_slow_row_is_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(first_look, "_LIMITS", replace(first_look._LIMITS, row_s=1.0))
    look_first("corpus", crashing_corpus(tmp_path, 2, deaths={1: "hang"}), 0.0)
    assert capsys.readouterr().out == ""


def test_a_row_that_kills_its_decoder_is_one_of_them(tmp_path: Path) -> None:
    deadly = crashing_corpus(tmp_path, 5, deaths={1: "segfault"})
    look_first("corpus", deadly, 0.5)
    with pytest.raises(DataError, match=r"1 of 5 rows .*crashes-decoder 1"):
        look_first("corpus", deadly, 0.0)


@pytest.mark.parametrize("which", ["corpus", "sae_corpus"])
def test_a_job_stops_before_it_needs_a_cluster(
    which: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysae.stages._pool.connect", lambda: pytest.fail("used Ray"))
    corpus(tmp_path / "bad", 0, 4)
    corpus(tmp_path / "good", 4, 0)
    named = {
        name: CorpusSettings("align-anything", str(tmp_path / ("bad" if name == which else "good")))
        for name in ("corpus", "sae_corpus")
    }
    run = RunSettings(max_rejected_fraction=0.0)
    settings = replace(small_settings(tmp_path / "storage", tiny_model), run=run, **named)
    with pytest.raises(DataError, match=rf"^{which}: 4 of 4 rows"):
        make(Chain(settings), "reports")
