"""Training without a cache: the same tokens as with one, in the same order."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from raysae.activations import CacheSettings, ReadingSettings
from raysae.activations.stream import StreamOrder, StreamPosition
from raysae.artifacts import ShardPlan
from raysae.artifacts.marks import write_mark
from raysae.errors import DataError, SettingsError
from raysae.pipeline import make
from raysae.sae import Ranks
from raysae.settings import RunSettings
from raysae.stages import _stream, report
from raysae.stages import train as stage
from raysae.stages._capacity import Resources
from raysae.stages._hidden_states import Reading
from raysae.stages._stream import ShardStream, StreamPlan
from raysae.stages._stream_worker import MARKS, StreamTask
from raysae.stages._streamed_tokens import (
    StreamedSource,
    endless_tasks,
    judged_tasks,
    position_of,
)
from raysae.stages.chain import Chain, ChainSettings, ShardSettings, TrainRunSettings
from tests.activations.test_stream import assert_same
from tests.stages.chains import reader_of, small_settings, unfinished_files
from tests.storages import at, path_of

SMALL = RunSettings(cpus_per_actor=0.25)
"""A rank, an actor and a reader fit twice on two cores."""


def settings_of(storage: Path, model: Path, **changes: Any) -> ChainSettings:
    """Settings of 64 rows in 4 shards, 3 of which are trained on, in one window."""
    train = TrainRunSettings(cpus_per_worker=0.5, checkpoint_every=10, max_failures=1)
    settings = small_settings(storage, model, shards=ShardSettings(16), run=SMALL, train=train)
    return replace(settings, **changes)


STREAM = ReadingSettings(stream=True)


@pytest.fixture(scope="module")
def cached(shared_ray: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """An SAE that was trained on a cache."""
    chain = Chain(settings_of(tmp_path_factory.mktemp("cached") / "storage", tiny_model))
    assert make(chain, "saes") is not None
    return chain


def weights(chain: Chain) -> dict[str, Any]:
    return load_file(path_of(chain.sae.directory) / "sae_weights.safetensors")


@pytest.mark.ray
@pytest.mark.cluster
def test_the_sae_is_that_of_a_cache_though_the_rank_died(
    cached: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One window is all of the corpus, so that even the start sample is the same."""
    settings = replace(cached.settings, storage=str(tmp_path / "storage"), reading=STREAM)
    chain, mark = Chain(settings), tmp_path / "died"

    def dies_once(config: dict[str, Any]) -> None:
        import os

        from raysae.stages import train

        print_progress = train._print_progress

        def die_after_25_steps(point: dict[str, float], *rest: Any) -> None:
            if point["step"] > 25 and not mark.exists():
                mark.touch()
                os._exit(1)
            print_progress(point, *rest)

        train._print_progress = die_after_25_steps
        train._train_rank(config)

    monkeypatch.setattr(stage, "_train_rank", dies_once)
    result = make(chain, "saes")
    assert mark.exists()
    assert result is not None
    assert (result.rows, result.rejected, result.resumed) == (64, 0, False)
    expected, found = weights(cached), weights(chain)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), tensor.numpy(), err_msg=name)
    histories = [one.sae.directory.read_json("history.json") for one in (cached, chain)]
    assert histories[0] == histories[1]
    metadata, before = chain.sae.metadata(), cached.sae.metadata()
    assert metadata["health"] == before["health"]
    told = {**before["activations"], "name": None, "finished_at": "", "seconds": None}
    assert metadata["activations"] == told
    kinds = {path.name for path in path_of(chain.root).iterdir()}
    assert "activations" not in kinds
    assert not (path_of(chain.sae.directory) / "work").exists()
    assert unfinished_files(path_of(chain.root)) == []


@pytest.mark.ray
def test_two_ranks_read_shards_of_their_own(cached: Chain, tmp_path: Path) -> None:
    train = replace(cached.settings.train, workers=2)
    settings = replace(
        cached.settings, storage=str(tmp_path / "storage"), reading=STREAM, train=train
    )
    chain = Chain(settings)
    assert make(chain, "saes") is not None
    metadata, before = chain.sae.metadata(), cached.sae.metadata()
    assert metadata["workers"] == 2
    assert metadata["activations"]["tokens"] == before["activations"]["tokens"]
    one, two = (each["health"]["all"]["fvu"] for each in (before, metadata))
    assert two == pytest.approx(one, rel=0.25)


def plan_of(chain: Chain, work: Path, **changes: Any) -> StreamPlan:
    settings = chain.settings
    plan = StreamPlan(
        corpus=chain.sae_corpus,
        reading=Reading.of(settings),
        cache=settings.cache,
        run=settings.run,
        work=at(work),
        pools=1,
    )
    return replace(plan, **changes)


@pytest.mark.ray
def test_shards_arrive_whole_and_in_order_from_two_actors(cached: Chain, tmp_path: Path) -> None:
    run = RunSettings(cpus_per_actor=0.5, min_actors=2, max_actors=2)
    plan = plan_of(cached, tmp_path, run=run, part_bytes=10_000)
    shards, order = cached.shards(cached.sae_corpus), StreamOrder(3, 42, 2)
    stream = ShardStream(plan, partial(endless_tasks, order, shards, StreamPosition()))
    reader = reader_of(cached)
    arriving = stream.shards()
    for window in islice(order.windows_from(StreamPosition()), 6):
        for number in window.shard_s.tolist():
            shard, counts = next(arriving)
            rows = np.arange(reader.shard_rows[number])
            assert (shard.number, shard.rows, counts["rows"]) == (number, len(rows), 16)
            assert len(shard._parts) > 10
            found = _read(shard)
            assert_same(found, reader.read_rows(number, rows))
    stream.stop()
    assert list(arriving) == []
    marks = sorted(path.name for path in (tmp_path / MARKS).iterdir())
    assert marks == [f"shard-0000{number}.done.json" for number in range(3)]


def _read(shard: Any) -> Any:
    from raysae.stages import _streamed_tokens

    return _streamed_tokens._read(shard, 0, shard.rows)


def test_tasks_of_the_first_epoch_are_marked_and_go_on_without_an_end() -> None:
    shards, order = ShardPlan([10], 2), StreamOrder(4, 0, 3)
    tasks = list(islice(endless_tasks(order, shards, StreamPosition()), 10))
    assert sorted(task.number for task in tasks[:4]) == [0, 1, 2, 3]
    assert [task.marked for task in tasks] == [True] * 4 + [False] * 6
    assert all(task.shard == shards[task.number] for task in tasks)
    later = list(islice(endless_tasks(order, shards, StreamPosition(0, 1)), 7))
    assert later == tasks[3:]
    (judged,) = judged_tasks(shards, 4)
    assert judged == StreamTask(shards[4], number=4, marked=True)


def test_other_ranks_go_on_where_an_epoch_began() -> None:
    positions = [[2, 5, 70], [1, 9, 3]]
    assert position_of(positions, Ranks(1, 2)) == (1, 9, 3)
    assert position_of(positions, Ranks(0, 3)) == (1, 0, 0)
    assert position_of(None, Ranks(0, 3)) == position_of([], Ranks(0, 3)) == (0, 0, 0)


def source(work: Path, rows: list[tuple[int, int]], held_out: int = 1) -> StreamedSource:
    """Return a source of which shards were read, with rows and rejected rows of each."""
    shards = ShardPlan([10 * (len(rows) + 1)], 10)
    for number, (used, rejected) in enumerate(rows):
        rejection = {"sample_id": "x", "ordinal": 1, "reason": "no-image", "detail": ""}
        content = {"rows": used, "rejected": rejected, "rejections": [rejection] * rejected}
        write_mark(at(work) / MARKS, shards[number].name, [], {**content, "tokens": 7 * used})
    nothing: Any = None
    plan = StreamPlan(nothing, nothing, CacheSettings(), RunSettings(), at(work), 1)
    return StreamedSource(plan, shards, held_out, 0, 2, 32)


def test_rows_are_told_of_once_each(tmp_path: Path) -> None:
    told = source(tmp_path, [(10, 0), (8, 2)]).told()
    assert (told["rows"], told["rejected"], told["rejections"]) == (18, 2, {"no-image": 2})
    assert told["activations"]["name"] is None
    assert told["activations"]["tokens"] == 7 * 18


def test_too_many_rejected_rows_end_the_job_after_an_epoch(tmp_path: Path) -> None:
    assert source(tmp_path / "a", [(10, 0), (8, 2)]).check_after_epoch() is True
    # One shard more was not read yet, and might be better.
    assert source(tmp_path / "b", [(1, 9)], held_out=0).check_after_epoch() is False
    with pytest.raises(DataError, match=r"max_rejected_fraction"):
        source(tmp_path / "c", [(10, 0), (1, 9)]).check_after_epoch()
    with pytest.raises(DataError, match=r"max_rejected_fraction"):
        source(tmp_path / "d", [(1, 9)]).told()


def test_the_id_names_all_that_decides_and_no_cache(tiny_model: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, tiny_model, reading=STREAM)
    chain, cached = Chain(settings), Chain(replace(settings, reading=ReadingSettings()))
    assert chain.sae.id != cached.sae.id
    assert chain.activations.id == cached.activations.id
    assert chain.activations.id not in str(chain.sae.spec.to_json())
    assert cached.sae.spec.settings["reading"] == {"mix_shards": 4}
    for change in (
        {"cache": CacheSettings(seed=1)},
        {"shards": ShardSettings(8)},
        {"model": replace(settings.model, layer=3)},
        {"reading": replace(STREAM, mix_shards=2)},
    ):
        assert Chain(replace(settings, **change)).sae.id != chain.sae.id  # type: ignore[arg-type]
    other_run = replace(settings, run=RunSettings(max_actors=3), train=TrainRunSettings(workers=2))
    assert Chain(other_run).sae.id == chain.sae.id


def test_more_ranks_than_shards_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    train = TrainRunSettings(workers=4)
    chain = Chain(settings_of(tmp_path, tiny_model, reading=STREAM, train=train))
    with pytest.raises(SettingsError, match=r"^train\.workers: 4 ranks .* has 3 to train on"):
        stage._train_task(chain)


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_pools_that_never_fit_beside_the_ranks_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"^run\.cpus_per_actor: 2 rank\(s\) .* 1 actor\(s\) .*2 CPUs"
    ):
        _stream.pools(RunSettings(), 2, Resources(0.5, 0))


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_no_pool_grows_into_another_ones_place() -> None:
    run = replace(SMALL, max_actors=8)
    assert _stream.pools(run, 2, Resources(0.5, 0)).max_actors == 1
    assert _stream.pools(run, 1, Resources(0.5, 0)).max_actors == 5
    assert _stream.pools(SMALL, 1, Resources(0.5, 0)) == SMALL


def test_the_report_tells_that_there_was_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        name = "x/1"

        def __init__(self, **metadata: Any) -> None:
            self.content = metadata

        def metadata(self) -> dict[str, Any]:
            return {"seconds": 5.0, "finished_at": "now", **self.content}

    counts = dict.fromkeys(
        ("rows", "rejected", "tokens", "text_tokens", "image_tokens", "special_tokens"), 3
    )
    cache = {"name": None, "finished_at": "", "seconds": None, **counts}

    class FakeChain:
        sae = Told(activations=cache)
        weights = Told(**counts)
        subset = Told(scored=2)

    chain: Any = FakeChain()
    assert [ref.role for ref in report._artifacts(chain)] == ["sae", "weights", "subset"]
    first, *others = report._stages(chain, counts)
    assert asdict(first) == {
        **{name: 3 for name in counts if name != "tokens"},
        "stage": "train, streamed",
        "seconds": 5.0,
    }
    assert [stage.stage for stage in others] == ["weights", "score", "select"]
