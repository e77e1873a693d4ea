"""docs/corpora.md and docs/add-a-corpus.md, followed to the letter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pytest
import yaml

from raysae.corpora import CorpusSettings, open_corpus, sources
from raysae.corpora.columns import ColumnMap
from raysae.sample import Rejection, Sample
from tests.corpora.published import FIXTURES
from tests.corpora.published_rows import IMAGE, Rows, cell, pairs, write_parquet
from tests.pages import ROOT, blocks, job_commands, tables
from tests.scripts import run_script

ROWS = 240
BAD = {5: "empty-question", 150: "no-image"}
MAPPED = {
    "HuggingFaceH4/rlaif-v_formatted": "rlaif-v-formatted",
    "trl-lib/rlaif-v": "trl-rlaif-v",
    "HuggingFaceH4/ultrafeedback_binarized": "ultrafeedback",
    "LLaVA-Instruct": "llava-instruct",
}
"""Data set of the page's second table → the copy of it."""


def write_pairs(file: Path, names: tuple[str, str, str, str]) -> None:
    """Write a user's own Parquet file: question, image, better answer, worse answer."""
    question, image, *answers = names
    rows: Rows = [
        dict(zip(names, (pair.question, cell(pair.image), pair.chosen, pair.rejected), strict=True))
        for pair in pairs(rows=ROWS)
    ]
    rows[5][question], rows[150][image] = " ", None
    texts = [(name, pa.string()) for name in (question, *answers)]
    schema = pa.schema([*texts, (image, IMAGE)])
    write_parquet(file, rows, schema)


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_a_users_own_columns_are_filtered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's YAML file and its command for a first try, in an empty directory."""
    write_pairs(tmp_path / "data/rows.parquet", ("prompt", "picture", "good", "bad"))
    (settings,) = blocks("corpora.md", "yaml")
    assert settings.count("/data/pairs") == 1
    (tmp_path / "pairs.yaml").write_text(settings.replace("/data/pairs", str(tmp_path / "data")))
    (argv,) = [argv for _, argv in job_commands("corpora.md") if "--corpus.max_rows" in argv]
    monkeypatch.chdir(tmp_path)
    code = run_script(ROOT / "jobs/filter.py", argv)
    output = capsys.readouterr().out
    assert code == 0, output[-3000:]
    result = json.loads(output.splitlines()[-1].removeprefix("RAYSAE_RESULT "))
    assert (result["rows"], result["rejected"]) == (99, 2)


def test_the_page_names_every_corpus() -> None:
    known = next(table for table in tables("corpora.md") if table[0][0] == "`--corpus`")
    names = {row[0].strip("`") for row in known[1:] if not row[0].startswith("…")}
    assert names == {name for name in sources.SOURCES if not name.startswith("builtin")}


@pytest.mark.parametrize("data_set", MAPPED)
def test_the_pages_maps_read_the_data_sets(data_set: str, tmp_path: Path) -> None:
    maps = next(table for table in tables("corpora.md") if table[0][0] == "data set")
    (row,) = [row for row in maps if data_set in row[0]]
    columns = ColumnMap(**yaml.safe_load("{" + row[2].replace("`", "") + "}"))
    fixture = FIXTURES[MAPPED[data_set]]
    fixture.write(tmp_path)
    settings = CorpusSettings("generic", str(tmp_path), files=row[1].strip("`"), columns=columns)
    rows = list(open_corpus(settings).all_samples())
    assert {row.ordinal: row.reason for row in rows if isinstance(row, Rejection)} == fixture.bad
    for sample in rows:
        if isinstance(sample, Sample):
            good = fixture.good(sample.ordinal)
            assert sample.images == good.images
            assert (sample.chosen, sample.rejected) == (good.chosen, good.rejected)


def test_the_page_tells_every_reason() -> None:
    told = next(table for table in tables("corpora.md") if table[0][0] == "reason")
    named = {name for row in told[1:] for name in re.findall(r"`([a-z-]+)`", row[0])}
    code = "".join(
        path.read_text(encoding="utf-8")
        for part in ("corpora", "models", "stages")
        for path in (ROOT / "raysae" / part).glob("*.py")
    )
    given = set(re.findall(r'RejectedSampleError\(\s*"([a-z-]+)"', code))
    assert given
    assert given <= named
    assert {reason for copy in FIXTURES.values() for reason in copy.bad.values()} <= named
    assert {name for name in named if f'"{name}"' not in code} == set()


def test_a_corpus_of_ones_own_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module and the line in the table that the page shows."""
    module, line = blocks("add-a-corpus.md", "python")
    written: dict[str, Any] = {}
    exec(module, written)
    scope = {**vars(sources), **written}
    table = {**sources.SOURCES, **eval("{" + line + "}", scope)}
    monkeypatch.setattr(sources, "SOURCES", MappingProxyType(table))
    write_pairs(tmp_path / "data/train-0.parquet", ("query", "chart", "better", "worse"))
    write_pairs(tmp_path / "data/test-0.parquet", ("query", "chart", "better", "worse"))
    corpus = open_corpus(CorpusSettings("my-pairs", str(tmp_path)))
    rows = list(corpus.all_samples())
    assert {row.ordinal: row.reason for row in rows if isinstance(row, Rejection)} == BAD
    assert len(rows) == ROWS
