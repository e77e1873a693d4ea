"""Copies of the published data sets through `jobs/filter.py`, from their files to the subset."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysae.corpora import open_corpus, open_subset
from raysae.sample import Rejection, Sample
from raysae.scoring import SelectionSettings
from raysae.settings import RunSettings
from raysae.stages.chain import Chain, ChainSettings
from raysae.stages.live_scores import score_marks
from tests.corpora.published import FIXTURES
from tests.scripts import run_script
from tests.stages.chains import argv_of
from tests.stages.conftest import Made

AT_ONCE = {"align-anything", "llava-instruct", "ultrafeedback"}
"""One of each kind in `make test`: pictures, JSON lines, text alone; `make test-cluster` has the
time for all others."""

JOB = Path(__file__).parents[2] / "jobs" / "filter.py"


@pytest.fixture(scope="module")
def settings(made: Made, tmp_path_factory: pytest.TempPathFactory) -> ChainSettings:
    """The small chain's settings on a copy of its storage, where cache and SAE are finished."""
    storage = tmp_path_factory.mktemp("published") / "storage"
    shutil.copytree(made.settings.storage, storage)
    return replace(made.settings, storage=str(storage))


@pytest.mark.ray
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in AT_ONCE else pytest.mark.cluster) for name in FIXTURES],
)
def test_a_published_data_set_is_filtered(
    name: str,
    settings: ChainSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fixture = FIXTURES[name]
    scorer = "cosine-cooccurring" if fixture.has_images else "l0"
    wanted = replace(
        settings,
        corpus=fixture.written(tmp_path / "corpus"),
        run=RunSettings(max_rejected_fraction=0.5),
        select=SelectionSettings(scorer=scorer, fraction=0.5),
    )
    code = run_script(JOB, argv_of(wanted))
    output = capsys.readouterr().out
    assert code == 0, output[-3000:]
    result = json.loads(output.splitlines()[-1].removeprefix("RAYSAE_RESULT "))

    chain = Chain(wanted)
    corpus = open_corpus(wanted.corpus)
    rows = list(corpus.all_samples())
    good = {row.ordinal: row for row in rows if isinstance(row, Sample)}
    bad = {row.ordinal: row.reason for row in rows if isinstance(row, Rejection)}
    assert bad == dict(fixture.bad)
    marks = list(score_marks(chain))
    told = {r["ordinal"]: r["reason"] for mark in marks for r in mark["rejections"]}
    assert told == bad
    assert result["rejected"] == len(bad)
    assert result["rows"] in (len(good) // 2, len(good) - len(good) // 2)

    subset = Path(result["artifact"])
    kept = pq.read_table(subset / "kept.parquet")
    again = list(open_subset(wanted.corpus, subset / "data").all_samples())
    originals = [good[ordinal] for ordinal in sorted(kept["ordinal"].to_pylist())]
    for copy, original in zip(again, originals, strict=True):
        assert isinstance(copy, Sample)
        assert copy.messages == original.messages
        assert copy.images == original.images
        assert (copy.chosen, copy.rejected) == (original.chosen, original.rejected)
    for file in (subset / "data").iterdir():
        assert pq.read_schema(file).names == corpus.schema.names
