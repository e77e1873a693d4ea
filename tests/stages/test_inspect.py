from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raysae.corpora import CorpusSettings
from raysae.corpora.columns import ColumnMap
from raysae.errors import SettingsError
from raysae.models import ModelSettings
from raysae.settings import parse_settings
from raysae.stages import inspect
from raysae.stages.inspect import InspectSettings, run_inspect
from tests.corpora.rows import image_bytes, row, write_rows
from tests.stages.test_careful import crashing_corpus

ROOT = Path(__file__).parents[2]


def settings(path: Path, **changes: object) -> InspectSettings:
    corpus = CorpusSettings("align-anything", str(path))
    page = str(path / "page.html")
    return InspectSettings(**{"corpus": corpus, "html": page, **changes})  # type: ignore[arg-type]


def test_everything_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(question="What?"), row(image=image_bytes()[:-200]), row(response_1=None)]
    write_rows(tmp_path / "a.parquet", [*rows, row(image=image_bytes("JPEG", (60, 20)))])
    found = run_inspect(settings(tmp_path, rows=0))
    assert (found.rows, found.looked_at, found.rejected) == (4, 4, 2)
    assert {group.reason: group.rows for group in found.rejections} == {
        "truncated-image": 1,
        "null-answer": 1,
    }
    assert dict(found.formats) == {"PNG RGB": 1, "JPEG RGB": 1}
    spreads = {one.name: one.quantiles for one in found.spreads}
    assert (spreads["question, characters"][0], spreads["image width, pixels"][4]) == (5, 60)
    assert "image tokens" not in spreads
    roles = {column.name: column.holds for column in found.columns}
    assert (roles["overall_response"], roles["critique"]) == ("preference", "")
    assert [part.name for part in found.parts if part.inspected] == ["text-image-to-text"]
    assert "39,216 rows as published" in capsys.readouterr().out
    assert "null-answer" in (tmp_path / "page.html").read_text()


def test_a_model_counts_tokens_and_rejects(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row(), row(question="cat " * 30_000)])
    model = ModelSettings("builtin-llava-next")
    found = run_inspect(settings(tmp_path, rows=0, model=model, html=""))
    assert {group.reason for group in found.rejections} == {"too-long"}
    spreads = {one.name: one for one in found.spreads}
    assert spreads["image tokens"].rows == spreads["text tokens"].rows == 1
    assert not (tmp_path / "page.html").exists()


def test_columns_are_printed_before_a_map_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    generic = CorpusSettings("generic", str(tmp_path))
    with pytest.raises(SettingsError, match=r"^corpus\.columns: names no question"):
        run_inspect(settings(tmp_path, corpus=generic))
    assert "inspect: column critique: string" in capsys.readouterr().out
    mapped = CorpusSettings("generic", str(tmp_path), columns=ColumnMap(question="critique"))
    assert run_inspect(settings(tmp_path, corpus=mapped)).rejected == 0


def test_only_the_rows_that_are_wanted_are_looked_at(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row(question=f"What is {n}?") for n in range(100)])
    found = run_inspect(settings(tmp_path, rows=5))
    assert (found.rows, found.looked_at) == (100, 5)
    found = run_inspect(settings(tmp_path, rows=60))
    assert found.looked_at == 60
    # Not the first six: the corpus may be sorted.
    assert found.examples[-1].ordinal > 60
    assert len(found.examples) == 6


def test_a_file_of_another_jobs_settings_can_be_used(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    file = tmp_path / "filter.yaml"
    file.write_text(
        f"corpus: {{name: align-anything, path: {tmp_path}}}\n"
        "storage: s3://bucket/x\nsae: {d_sae: 64}\nrun: {max_actors: 8}\n"
    )
    for argv in (["--config", str(file)], [f"--config={file}"]):
        parsed = parse_settings(InspectSettings, [*argv, "--rows=3"], "inspect", "")
        assert (parsed.corpus.path, parsed.rows) == (str(tmp_path), 3)
    file.write_text("sae.steps: 3\ncorpus: {name: generic, path: 2024-11-05}\n")
    parsed = parse_settings(InspectSettings, [f"--config={file}"], "inspect", "")
    assert parsed.corpus.path == "2024-11-05"
    file.write_text("corpus: {nmae: x}\n")
    with pytest.raises(SettingsError, match="nmae"):
        parse_settings(InspectSettings, [f"--config={file}"], "inspect", "")
    file.write_text("colour: red\n")
    with pytest.raises(SettingsError, match="colour"):
        parse_settings(InspectSettings, [f"--config={file}"], "inspect", "")


@pytest.mark.parametrize("more", ["", "storage: x\n"])
def test_a_file_may_name_another_beside_it(more: str, tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("name: spa-vl\npath: /x\n")
    (tmp_path / "whole.yaml").write_text(f"corpus: part.yaml\n{more}")
    argv = ["--config", str(tmp_path / "whole.yaml")]
    parsed = parse_settings(InspectSettings, argv, "inspect", "")
    assert parsed.corpus == CorpusSettings("spa-vl", "/x")


def test_examples_do_not_bunch_behind_bad_rows(tmp_path: Path) -> None:
    bad = [row(image=None)] * 50
    write_rows(tmp_path / "a.parquet", [*bad, *[row(question=f"{n}?") for n in range(50)]])
    examples = run_inspect(settings(tmp_path, rows=0)).examples
    assert [example.ordinal for example in examples] == [50, 66, 82, 98]


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    with pytest.raises(SettingsError, match=r"html: .* cannot be written"):
        run_inspect(settings(tmp_path, html=str(tmp_path / "none" / "page.html")))


def test_the_job_takes_the_name_first_and_hides_no_module(tmp_path: Path) -> None:
    """`jobs/` comes first on the path, where `inspect.py` has the name of a standard module."""
    write_rows(tmp_path / "a.parquet", [row()])
    command = [sys.executable, "jobs/inspect.py", "align-anything", "--html="]
    command.append(f"--corpus.path={tmp_path}")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1].removeprefix("RAYSAE_RESULT "))
    assert (result["job"], result["rows"], result["rejected"]) == ("inspect", 1, 0)
    code = "import sys; sys.path.insert(0, 'jobs'); import inspect; inspect.signature(print)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_row_that_kills_its_decoder_is_one_that_a_job_rejects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = crashing_corpus(tmp_path, 40, deaths={3: "abort", 20: "exit"})
    monkeypatch.setattr(inspect, "open_corpus", lambda _: corpus)
    found = run_inspect(settings(tmp_path, rows=0))
    assert (found.looked_at, found.rejected) == (40, 2)
    assert {group.reason: group.rows for group in found.rejections} == {"crashes-decoder": 2}
    assert "was ended by SIGABRT" in (tmp_path / "page.html").read_text()
