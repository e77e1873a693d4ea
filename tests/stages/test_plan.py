from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from raysae.activations import CacheSettings
from raysae.corpora import CorpusSettings
from raysae.errors import DataError, SettingsError
from raysae.settings import RunSettings
from raysae.stages import plan as stage
from raysae.stages.chain import Chain
from tests.corpora.rows import row, write_rows
from tests.stages.chains import contents, small_settings
from tests.stages.conftest import Made


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def chain(tiny_model: Path, tmp_path: Path) -> Chain:
    return Chain(small_settings(tmp_path / "storage", tiny_model))


def users_corpus(chain: Chain, path: Path) -> Chain:
    return Chain(replace(chain.settings, sae_corpus=CorpusSettings("align-anything", str(path))))


@pytest.mark.ray
def test_where_every_row_is_sampled_the_plan_is_what_the_cache_became(made: Made) -> None:
    chain = made.chain
    planned, metadata = stage.plan_cache(chain), chain.activations.metadata()
    assert planned.shards == len(metadata["shards"])
    assert (planned.corpus.rows, planned.corpus.usable) == (64, 1.0)
    assert planned.corpus.tokens == metadata["tokens"]
    columns = 4 + 4 + 4 + 1
    assert planned.bytes_on_disk == metadata["tokens"] * (32 * 4 + columns)
    data = [chain.activations.directory / shard["data"] for shard in metadata["shards"]]
    assert planned.bytes_on_disk == pytest.approx(sum(p.stat().st_size for p in data), rel=0.05)


def test_printing_a_plan_makes_nothing(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    stage.print_plan(chain)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("plan: ") for line in lines)
    assert re.search(r"rows +64 in 2 shards, 100% usable", lines[0])
    assert "10,240 tokens" in lines[-1]
    assert contents(chain.root) == {}


def test_kept_tokens_bound_the_disk(chain: Chain) -> None:
    few = Chain(replace(chain.settings, cache=CacheSettings(tokens_per_sample=2)))
    assert stage.plan_cache(few).bytes_on_disk == 64 * 2 * (32 * 4 + 13)


def test_gpus_cost_money(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunSettings(gpus_per_actor=1.0, price_per_gpu_hour=1e12)
    stage.print_plan(Chain(replace(chain.settings, run=run)))
    assert re.search(r"\$[1-9]", capsys.readouterr().out)


def test_what_does_not_fit_the_disk_is_refused(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 0, 10))
    with pytest.raises(SettingsError, match=r"^storage: the cache needs"):
        stage.print_plan(chain)


def test_unusable_rows_lower_the_share(chain: Chain, tmp_path: Path) -> None:
    write_rows(tmp_path / "c" / "x.parquet", [row(), row(question=""), row(question="b?"), row()])
    assert stage.plan_cache(users_corpus(chain, tmp_path / "c")).corpus.usable == 0.75


def test_a_corpus_without_a_usable_row_is_refused(chain: Chain, tmp_path: Path) -> None:
    write_rows(tmp_path / "c" / "x.parquet", [row(question="")])
    with pytest.raises(DataError, match=r"none of 1 sampled rows.*empty-question"):
        stage.plan_cache(users_corpus(chain, tmp_path / "c"))
