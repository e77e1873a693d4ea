from __future__ import annotations

import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raysae.activations import CacheSettings, ReadingSettings
from raysae.activations.selection import keep_of_sample
from raysae.corpora import CorpusSettings
from raysae.errors import DataError, SettingsError
from raysae.models import model_size
from raysae.settings import RunSettings
from raysae.stages import plan as stage
from raysae.stages.chain import (
    CacheJobSettings,
    Chain,
    FinetuneJobSettings,
    ShardSettings,
    TrainRunSettings,
)
from tests.corpora.rows import row, write_rows
from tests.stages.chains import small_settings
from tests.stages.conftest import Made
from tests.storages import path_of


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def chain(tiny_model: Path, tmp_path: Path) -> Chain:
    return Chain(replace(small_settings(tmp_path / "storage", tiny_model), plan=True))


def users_corpus(chain: Chain, path: Path) -> Chain:
    return Chain(replace(chain.settings, sae_corpus=CorpusSettings("align-anything", str(path))))


ALL = ("activations", "saes", "weights", "scores")


@pytest.mark.ray
def test_where_every_row_is_sampled_the_plan_is_what_the_cache_became(made: Made) -> None:
    chain = made.chain
    planned, metadata = stage.Plan(chain), chain.activations.metadata()
    assert (planned.sae_corpus.rows, planned.sae_corpus.usable) == (64, 1.0)
    assert planned.sae_corpus.tokens == metadata["tokens"]
    columns, index = 4 + 4 + 4 + 1 + 4, 4 + 4
    assert planned.cache().disk_bytes == metadata["tokens"] * (32 * 4 + columns + index)
    on_disk = sum(
        path.stat().st_size for path in path_of(chain.activations.directory).rglob("*.arrow")
    )
    assert planned.cache().disk_bytes == pytest.approx(on_disk, rel=0.05)


@pytest.mark.ray
def test_states_of_the_weights_take_at_most_what_is_planned(made: Made) -> None:
    planned = stage.Plan(made.chain).weights().disk_bytes
    states = [*path_of(made.chain.weights.directory).glob("*top_tokens.arrow")]
    assert len(states) > 1
    assert 0.1 * planned < sum(path.stat().st_size for path in states) < 1.5 * planned


def test_printing_a_plan_makes_nothing(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    stage.print_plan(chain, ALL)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("plan: everything from nothing")
    names = ["sae_corpus", "corpus", "cache", "train", "weights", "score", "together"]
    assert [line.split()[:2] for line in lines] == [["plan:", name] for name in names]
    assert re.search(r"sae_corpus +64 rows, 100% usable", lines[0])
    assert re.search(r"corpus +96 rows", lines[1])
    assert not path_of(chain.root).exists()


def test_only_what_is_made_is_planned(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    missing = replace(chain.settings, corpus=CorpusSettings("align-anything", "/nowhere"))
    stage.print_plan(Chain(missing), ("activations",))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "everything",
        "sae_corpus",
        "cache",
        "together",
    ]


def test_work_is_that_of_every_pass(chain: Chain) -> None:
    plan = stage.Plan(chain)
    rows = chain.settings.weights.n_samples or 96
    sae = chain.settings.sae
    encoded = 2 * 32 * sae.d_sae * plan.corpus.tokens
    assert plan.cache().flops == plan.sae_corpus.flops
    assert plan.score().flops == plan.corpus.flops + encoded
    assert plan.weights().flops == pytest.approx(plan.score().flops * min(1, rows / 96))
    assert plan.train().flops == (
        (2 * 32 * sae.d_sae + 8 * 32 * (sae.k + sae.aux_k)) * sae.steps * sae.batch_tokens
    )


def streamed(chain: Chain, **changes: Any) -> Chain:
    reading = ReadingSettings(stream=True)
    return Chain(replace(chain.settings, **{"reading": reading, **changes}))


def test_a_training_without_a_cache_is_planned(
    chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model runs for every token of every step, in actors of their own, and no cache is."""
    stage.print_plan(streamed(chain), ("saes",))
    names = ["everything", "sae_corpus", "stream", "train", "together"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == names
    assert lines[2].endswith(" 0.00 GiB on disk")
    plan, cached = stage.Plan(streamed(chain)), stage.Plan(chain)
    sae = chain.settings.sae
    passes = sae.steps * sae.batch_tokens / plan.sae_corpus.tokens
    assert passes > 1
    assert plan.stream().flops == pytest.approx(passes * cached.cache().flops)
    assert plan.stream().disk_bytes == 0
    assert plan.train().disk_bytes == cached.train().disk_bytes
    shard = plan.sae_corpus.tokens / 2 * (32 * 4 + 17)
    windows = 2 * 2 * shard
    assert plan.train().worker_bytes - cached.train().worker_bytes == pytest.approx(windows, abs=4)


def test_every_rank_starts_a_pool_and_holds_windows_of_its_own_shards(chain: Chain) -> None:
    one, two = (
        stage.Plan(streamed(chain, train=TrainRunSettings(workers=n), run=RunSettings(2, 4)))
        for n in (1, 2)
    )
    start = one._actor_start_s
    assert two.stream().seconds - one.stream().seconds == pytest.approx(2 * start)
    assert two._window_bytes == one._window_bytes // 2


def test_fine_tuning_is_planned(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    shared = {f.name: getattr(chain.settings, f.name) for f in fields(chain.settings)}
    settings = FinetuneJobSettings(**shared)
    stage.print_plan(Chain(settings), (*ALL, "subsets", "tuned"))
    *_, tuned, together = capsys.readouterr().out.splitlines()
    assert re.match(r"plan: finetune +\d\.\d\de\+\d\d operations, ", tuned)
    plan = stage.Plan(Chain(settings))
    pairs = settings.finetune.max_steps * settings.finetune.global_batch
    forward = 2 * plan.longest_pair * model_size(settings.model.path).text.flops(plan.longest_pair)
    assert plan.finetune().flops == pytest.approx(pairs * 4 * forward)
    assert together.startswith("plan: together")


def test_kept_tokens_bound_the_disk(chain: Chain) -> None:
    few = Chain(replace(chain.settings, cache=CacheSettings(tokens_per_sample=2)))
    assert stage.Plan(few).cache().disk_bytes == 64 * 2 * (32 * 4 + 25)


def test_a_share_of_image_tokens_bounds_the_disk(chain: Chain) -> None:
    """Of each sample as many tokens as there can be of which a tenth are image tokens."""
    settings = CacheSettings(image_fraction=0.1, tokens_per_sample=30)
    plan = stage.Plan(Chain(replace(chain.settings, cache=settings)))
    states = stage.HiddenStates(stage.Reading(chain.settings.model, "meta", token_budget=1))
    prepared = states.prepare(list(chain.sae_corpus.all_samples())).prepared
    kept = sum(len(keep_of_sample(one.modality_n, 0, settings).index_m) for one in prepared)
    assert 0 < kept < 64 * 30
    assert plan.cache().disk_bytes == kept * (32 * 4 + 25)
    assert plan.stream().flops > stage.Plan(chain).stream().flops


def test_two_shards_of_an_actor_take_their_room(chain: Chain) -> None:
    """One is published while the next one is collected."""
    whole = replace(chain.settings, shards=ShardSettings(max_rows=64))
    one, two = (stage.Plan(each).cache() for each in (Chain(whole), chain))
    disk = one.disk_bytes
    assert two.disk_bytes == disk
    # Each is held, gathered, and copied to be written: of one shard all of it, of two a half each.
    assert one.worker_bytes - two.worker_bytes == pytest.approx(0, abs=3)
    quarter = replace(chain.settings, shards=ShardSettings(max_rows=16))
    four = stage.Plan(Chain(quarter)).cache()
    assert two.worker_bytes - four.worker_bytes == pytest.approx(1.5 * disk, rel=0.01)


def test_batches_ahead_take_their_room(chain: Chain) -> None:
    plan = stage.Plan(chain)
    twice = replace(chain.settings.sae, batch_tokens=2 * chain.settings.sae.batch_tokens)
    more = stage.Plan(Chain(replace(chain.settings, sae=twice))).train()
    assert more.worker_bytes - plan.train().worker_bytes > 4 * 256 * 32 * 4


def test_each_layer_takes_its_room(chain: Chain) -> None:
    one = stage.Plan(chain).cache()
    settings = CacheJobSettings(**{**vars(chain.settings), "layers": (4, 0, 2)})
    three = stage.Plan(Chain(settings)).cache()
    assert three.disk_bytes == 3 * one.disk_bytes
    assert three.flops == one.flops
    held = 2 * 2 * settings.run.token_budget * 32 * 4
    assert three.worker_bytes > one.worker_bytes + held


def test_gpus_cost_money(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunSettings(gpus_per_actor=1.0, price_per_gpu_hour=1e12)
    stage.print_plan(Chain(replace(chain.settings, run=run)), ALL)
    *_, together = capsys.readouterr().out.splitlines()
    assert re.search(r"\$[1-9]", together)


def test_gpu_hours_are_those_of_the_gpus(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunSettings(gpus_per_actor=0.25)
    plan = stage.Plan(Chain(replace(chain.settings, run=run)))
    assert plan.cache().gpu_hours == pytest.approx(plan.cache().hours / 4)
    assert plan.train().gpu_hours == 0
    long = replace(plan.cache(), seconds=8 * 3600)
    assert "8.000 worker-hours, 2.000 GPU-hours, $6.00" in stage._described(long, 3.0)
    stage.print_plan(plan.chain, ALL)
    lines = capsys.readouterr().out.splitlines()
    hours = [float(found[1]) for line in lines if (found := re.search(r"([\d.]+) GPU-h", line))]
    assert sum(hours[:-1]) == pytest.approx(hours[-1], abs=0.01)


def test_what_does_not_fit_the_disk_is_refused(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 0, 10))
    with pytest.raises(SettingsError, match=r"^storage: the run needs"):
        stage.print_plan(chain, ALL)


def test_unusable_rows_lower_the_share(chain: Chain, tmp_path: Path) -> None:
    write_rows(tmp_path / "c" / "x.parquet", [row(), row(question=""), row(question="b?"), row()])
    assert stage.Plan(users_corpus(chain, tmp_path / "c")).sae_corpus.usable == 0.75


def test_more_bad_rows_than_allowed_are_warned_of(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "c" / "x.parquet", [row(), row(question=""), row(image=None)])
    stage.print_plan(users_corpus(chain, tmp_path / "c"), ("activations",))
    assert (
        "plan: warning: 2 of 3 rows looked at cannot be used (empty-question 1, no-image 1), more "
        "than run.max_rejected_fraction = 0.2 allows; the job would stop for that\n"
    ) in capsys.readouterr().out


def test_a_sample_of_rows_is_no_certainty(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "c" / "x.parquet", [row(), row(), row(image=None)] * 50)
    stage.print_plan(users_corpus(chain, tmp_path / "c"), ("activations",))
    assert "allows; the job may stop for that\n" in capsys.readouterr().out


def test_a_corpus_without_a_usable_row_is_refused(chain: Chain, tmp_path: Path) -> None:
    write_rows(tmp_path / "c" / "x.parquet", [row(question="")])
    with pytest.raises(DataError, match=r"none of 1 sampled rows.*empty-question"):
        stage.Plan(users_corpus(chain, tmp_path / "c")).cache()
