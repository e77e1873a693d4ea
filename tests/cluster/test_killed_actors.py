"""Actors and drivers of the shard stages are lost in the middle."""

from __future__ import annotations

import pytest

from tests.cluster.content import (
    cached_ids,
    cached_tokens,
    dataset_files,
    finished_files,
    live_scores,
    marks,
    source_ids,
    stamps,
    subset,
)
from tests.cluster.harness import ACTOR, kill, processes, wait_until_idle
from tests.cluster.settings import ROWS, SCORERS, SHARDS

pytestmark = pytest.mark.cluster

MAX_KILLS = 12


def assert_same_cache(undisturbed, storage):
    before, after = undisturbed.storage.artifact("activations"), storage.artifact("activations")
    assert before.name == after.name
    assert cached_ids(after) == source_ids("builtin", ROWS)
    assert cached_tokens(after) == cached_tokens(before)
    assert len(dataset_files(after)) == SHARDS


def test_a_killed_actor_costs_no_row_and_doubles_none(undisturbed, runner):
    cache = runner.storage.sibling(undisturbed.storage, "activations")
    job = runner.start("cache")
    actor = job.process(ACTOR)
    job.wait_until(lambda: len(marks(cache)) >= 3, "three shards")
    kill(actor)
    done = len(marks(cache))
    assert done < SHARDS, "the kill came too late"
    ended = job.wait()
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert ended.result["rows"] == ROWS
    assert_same_cache(undisturbed, runner.storage)


def test_actors_that_always_die_end_the_job_and_leave_nothing_that_looks_finished(runner):
    """Ray Data's own default restarts for ever."""
    job = runner.start("cache", "--run.max_retries=1")
    killed: set[int] = set()
    job.process(ACTOR)
    while job.client.poll() is None:
        for actor in processes(runner.head.process.pid, ACTOR):
            if actor.pid not in killed:
                killed.add(actor.pid)
                kill(actor)
        assert len(killed) <= MAX_KILLS, "restarted again and again"
    ended = job.wait()
    assert ended.client == 1
    assert ended.exit_code == 1
    assert not runner.storage.is_finished("activations")


def test_a_cache_whose_driver_was_killed_is_completed_by_the_next(undisturbed, runner):
    cache = runner.storage.sibling(undisturbed.storage, "activations")
    job = runner.start("cache")
    driver = job.driver()
    job.wait_until(lambda: len(marks(cache)) >= 3, "three shards")
    kill(driver)
    ended = job.wait()
    assert ended.client != 0
    assert ended.result is None
    wait_until_idle(runner.head.process.pid)
    assert not runner.storage.is_finished("activations")
    finished = finished_files(cache)
    assert 3 <= len(marks(cache)) < SHARDS, "the kill came too late"
    # What a machine that lost its power leaves besides.
    (cache / ".tmp-0123-shard-00015.arrow").write_bytes(b"half")
    (cache / "shard-00015-0000000000000000.arrow").write_bytes(b"published, but never marked")

    ended = runner.run("cache")
    assert ended.exit_code == 0, ended.output[-6000:]
    assert ended.result["resumed"] is True
    assert_same_cache(undisturbed, runner.storage)
    after = finished_files(cache)
    assert {name: after[name] for name in finished} == finished, "a finished shard was done again"


def test_scores_whose_driver_was_killed_are_completed_by_the_next(undisturbed, runner):
    storage = runner.storage
    storage.take(undisturbed.storage, "activations", "saes", "weights")
    job = runner.start("filter")
    driver = job.driver()
    job.wait_until(lambda: len(storage.score_marks()) >= 3 * SCORERS, "three shards' scores")
    kill(driver)
    assert job.wait().result is None
    wait_until_idle(runner.head.process.pid)
    assert len(storage.score_marks()) < SHARDS * SCORERS, "the kill came too late"
    assert not (storage.root / "scores" / "manifests").exists()
    data = storage.root / "scores" / "data"
    finished = stamps(path for path in data.rglob("*.parquet") if is_marked(storage, path))

    ended = runner.run("filter")
    assert ended.exit_code == 0, ended.output[-6000:]
    after = stamps(data.rglob("*.parquet"))
    assert {name: after[name] for name in finished} == finished, "a finished shard was done again"
    assert live_scores(storage) == live_scores(undisturbed.storage)
    kept, there = (s.artifact("subsets") for s in (storage, undisturbed.storage))
    assert kept.name == there.name
    assert subset(kept) == subset(there)


def is_marked(storage, data) -> bool:
    return (storage.root / "scores" / "marks" / f"{data.stem.split('-')[0]}.done.json").exists()
