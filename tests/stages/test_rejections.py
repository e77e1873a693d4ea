"""Rows that cannot be used, from the file to the exit code and the report."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.artifacts import ScoreTable
from raysae.corpora import CorpusSettings
from raysae.errors import DataError
from raysae.pipeline import make
from raysae.sample import Sample
from raysae.scoring import SCORERS
from raysae.settings import RunSettings
from raysae.stages.chain import Chain, ChainSettings
from raysae.stages.live_scores import score_marks
from raysae.storage import read_json
from tests.corpora.rows import SCHEMA, image_bytes, png_claiming, row, write_rows
from tests.stages.chains import argv_of, contents, small_settings
from tests.stages.conftest import Made
from tests.storages import path_of

JOBS = Path(__file__).parents[2] / "jobs"

BAD = {
    "truncated-image": {"image": image_bytes()[:-200]},
    "image-bomb": {"image": png_claiming(20_000, 20_000)},
    "no-image": {"image": None},
    "empty-question": {"question": " "},
    "null-answer": {"response_2": None},
    "equal-answers": {"response_1": "A cat.", "response_2": "A cat. "},
}
GOOD = 12
COUNTED = dict.fromkeys(BAD, 1)


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> CorpusSettings:
    """A corpus of two files, the second of which has no usable row at all."""
    directory = tmp_path_factory.mktemp("users")
    bad = [row(**changes) for changes in BAD.values()]
    good = [
        row(question=f"What is on picture {n}?", image=image_bytes(size=(30 + n, 30)))
        for n in range(GOOD)
    ]
    write_rows(directory / "a.parquet", [*bad[:2], *good, *bad[2:4]])
    write_rows(directory / "b.parquet", bad[4:])
    return CorpusSettings("align-anything", str(directory))


def reasons(marks: list[dict[str, Any]]) -> dict[str, int]:
    listed = [rejection["reason"] for mark in marks for rejection in mark["rejections"]]
    return {reason: listed.count(reason) for reason in listed}


RunScript = Callable[[str, ChainSettings], tuple[dict[str, Any], str]]


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunScript:
    """Run a job in this process; return its result line and the error that it printed."""

    def run(job: str, settings: ChainSettings) -> tuple[dict[str, Any], str]:
        monkeypatch.setattr(sys, "argv", [f"{job}.py", *argv_of(settings)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(JOBS / f"{job}.py"), run_name="__main__")
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        lines = captured.out.splitlines()
        result = json.loads(lines[-1].removeprefix("RAYSAE_RESULT "))
        assert result["exit_code"] == stopped.value.code
        errors = [line for line in lines if line.startswith(f"{job}: error: ")]
        return result, errors[0] if errors else ""

    return run


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing start Ray or work on it."""
    monkeypatch.setattr("raysae.stages._pool.connect", lambda: pytest.fail("used Ray"))


@pytest.fixture(scope="module")
def filtered(made: Made, users: CorpusSettings) -> Chain:
    """The user's corpus scored by the SAE of the shared chain."""
    run = RunSettings(max_rejected_fraction=0.5)
    settings = replace(made.settings, corpus=users, run=run)
    assert make(Chain(settings), "reports") is not None
    return Chain(settings)


@pytest.mark.ray
def test_every_stage_counts_them_with_their_reasons(filtered: Chain) -> None:
    assert len(filtered.shards(filtered.corpus)) == 2
    weighed = [
        read_json(p) for p in sorted(path_of(filtered.weights.directory).glob("*.done.json"))
    ]
    for marks in (weighed, list(score_marks(filtered))):
        assert reasons(marks) == COUNTED
        assert [(mark["rows"], mark["rejected"]) for mark in marks] == [(GOOD, 4), (0, 2)]
    assert filtered.subset.metadata()["rejections"] == COUNTED
    assert filtered.subset.metadata()["rejected"] == len(BAD)


@pytest.mark.ray
def test_rows_in_are_rows_out_and_rejected_ones(filtered: Chain) -> None:
    samples = list(filtered.corpus.all_samples())
    usable = [sample.sample_id for sample in samples if isinstance(sample, Sample)]
    assert len(samples) == filtered.corpus.snapshot.rows == GOOD + len(BAD)
    for scorer in SCORERS:
        groups = [filtered.row_group(s, scorer) for s in filtered.shards(filtered.corpus)]
        scored = ScoreTable(filtered.root).read(groups)["sample_id"].to_pylist()
        assert scored == usable
    listed = {row["sample_id"] for mark in score_marks(filtered) for row in mark["rejections"]}
    assert listed | set(usable) == {sample.sample_id for sample in samples}
    assert not listed & set(usable)


@pytest.mark.ray
def test_the_subset_holds_good_rows_only(filtered: Chain) -> None:
    rows = pq.read_table(path_of(filtered.subset.directory) / "data")
    assert rows.num_rows == GOOD // 2
    assert all(q.startswith("What is on picture") for q in rows["question"].to_pylist())


@pytest.mark.ray
def test_the_report_lists_them(filtered: Chain) -> None:
    page = (path_of(filtered.report.directory) / "report.html").read_text(encoding="utf-8")
    for reason in BAD:
        assert reason in page


@pytest.mark.ray
def test_too_many_stop_the_cache_which_goes_on_when_the_limit_is_raised(
    made: Made, users: CorpusSettings, run_script: RunScript, request: pytest.FixtureRequest
) -> None:
    settings = replace(made.settings, sae_corpus=users)
    directory = Chain(settings).activations.directory
    result, error = run_script("cache", settings)
    assert (result["exit_code"], result["artifact"]) == (3, None)
    assert "33% of the rows were rejected" in error
    assert "equal-answers 1" in error
    assert not directory.exists("metadata.json")

    request.getfixturevalue("without_ray")
    raised = replace(settings, run=RunSettings(max_rejected_fraction=0.4))
    result, error = run_script("cache", raised)
    assert error == ""
    seconds = result.pop("seconds")
    assert seconds >= 0
    assert result == {
        "job": "cache",
        "artifact": str(directory),
        "kind": "activations",
        "rows": GOOD,
        "rejected": len(BAD),
        "resumed": True,
        "exit_code": 0,
    }
    assert Chain(raised).activations.metadata()["rejections"] == COUNTED


@pytest.mark.ray
def test_a_corpus_without_a_usable_row_stops_the_job(
    made: Made, tmp_path: Path, run_script: RunScript
) -> None:
    write_rows(tmp_path / "c" / "x.parquet", [row(**changes) for changes in BAD.values()])
    corpus = CorpusSettings("align-anything", str(tmp_path / "c"))
    run = RunSettings(max_rejected_fraction=1.0)
    settings = replace(made.settings, storage=str(tmp_path / "s"), sae_corpus=corpus, run=run)
    result, error = run_script("cache", settings)
    assert result["exit_code"] == 3
    assert "the corpus has no usable row (" in error
    finished = [name for name in contents(tmp_path / "s") if name.endswith("metadata.json")]
    assert [name.split("/")[0] for name in finished] == ["snapshots"]
    with pytest.raises(DataError, match="not finished"):
        Chain(settings).activations.metadata()


def without_column(settings: ChainSettings, path: Path) -> ChainSettings:
    schema = pa.schema([field for field in SCHEMA if field.name != "response_2"])
    write_rows(path / "x.parquet", [row()], schema)
    return replace(settings, corpus=CorpusSettings("align-anything", str(path)))


def without_files(settings: ChainSettings, path: Path) -> ChainSettings:
    path.mkdir()
    return replace(settings, corpus=CorpusSettings("align-anything", str(path)))


def damaged_file(settings: ChainSettings, path: Path) -> ChainSettings:
    file = write_rows(path / "x.parquet", [row()])
    file.write_bytes(file.read_bytes()[:-10])
    return replace(settings, corpus=CorpusSettings("align-anything", str(path)))


def without_safetensors(settings: ChainSettings, path: Path) -> ChainSettings:
    path.mkdir()
    (path / "config.json").write_text("{}")
    return replace(settings, model=replace(settings.model, path=str(path)))


def without_model(settings: ChainSettings, path: Path) -> ChainSettings:
    return replace(settings, model=replace(settings.model, path=str(path)))


def too_deep(settings: ChainSettings, _: Path) -> ChainSettings:
    return replace(settings, model=replace(settings.model, layer=50))


def below_a_file(settings: ChainSettings, path: Path) -> ChainSettings:
    path.write_bytes(b"")
    return replace(settings, storage=str(path / "storage"))


SPOILED = [
    (without_column, 3, "x.parquet: there is no column 'response_2'"),
    (without_files, 3, "holds no file named"),
    (damaged_file, 3, "x.parquet cannot be read"),
    (without_safetensors, 2, "has no *.safetensors file"),
    (without_model, 2, "is neither a directory nor a shipped model"),
    (too_deep, 2, "layer: 50"),
    (below_a_file, 2, "cannot hold artifacts"),
]


@pytest.mark.parametrize("job", ["cache", "filter"])
@pytest.mark.parametrize("case", SPOILED, ids=lambda case: case[0].__name__)
@pytest.mark.usefixtures("without_ray")
def test_what_cannot_work_stops_a_job_before_it_leaves_anything(
    job: str, case: Any, run_script: RunScript, tiny_model: Path, tmp_path: Path
) -> None:
    spoil, exit_code, named = case
    settings = spoil(small_settings(tmp_path / "storage", tiny_model), tmp_path / "spoiled")
    settings = replace(settings, sae_corpus=settings.corpus)
    result, error = run_script(job, settings)
    assert (result["exit_code"], result["artifact"], result["rows"]) == (exit_code, None, 0)
    assert named in error
    assert not any(name.endswith("metadata.json") for name in contents(tmp_path))
