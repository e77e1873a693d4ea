"""The disk of the storage is full in the middle of a stage."""

from __future__ import annotations

import hashlib
import re

import pytest

from tests.cluster.content import Storage, latest_step, marks, read
from tests.cluster.harness import assert_one_clear_sentence
from tests.cluster.runner import Runner
from tests.cluster.sameness import assert_same_bytes
from tests.cluster.settings import CHECKPOINT_EVERY, SHARDS, STEPS
from tests.cluster.small_disk import FILLER, fill, small_disk

pytestmark = pytest.mark.cluster

DISK_BYTES = 64 << 20
SENTENCE = (
    r"storage: the disk of \S+ is full; free some space or name another storage, "
    r"and run again: what is finished is kept\."
)


@pytest.fixture
def disk():
    with small_disk(DISK_BYTES) as directory:
        yield directory


@pytest.fixture
def on_disk(runner, disk) -> Runner:
    """A runner whose storage lies on a small disk."""
    (disk / "storage").mkdir()
    return Runner(runner.head, Storage(disk / "storage"), runner.model, runner.logs)


def test_a_disk_that_fills_up_while_shards_are_written(undisturbed, on_disk, disk):
    cache = on_disk.storage.sibling(undisturbed.storage, "activations")
    job = on_disk.start("cache")
    job.wait_until(lambda: len(marks(cache)) >= 3, "three shards")
    fill(disk, leave=0)
    assert_one_clear_sentence(job.wait(), SENTENCE)
    assert not on_disk.storage.is_finished("activations")
    assert 3 <= len(marks(cache)) < SHARDS
    for mark in marks(cache):
        for file in read(mark)["files"]:
            assert hashlib.sha256((cache / file["name"]).read_bytes()).hexdigest() == file["sha256"]

    (disk / FILLER).unlink()
    ended = on_disk.run("cache")
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert ended.result["resumed"] is True
    assert_same_bytes("activations", undisturbed.storage, on_disk.storage)


def test_a_disk_that_fills_up_before_a_checkpoint(undisturbed, on_disk, disk):
    on_disk.storage.take(undisturbed.storage, "snapshots", "activations")
    sae = on_disk.storage.sibling(undisturbed.storage, "saes")
    job = on_disk.start("train")
    job.wait_until(lambda: latest_step(sae), "a checkpoint")
    fill(disk, leave=0)
    assert_one_clear_sentence(job.wait(), SENTENCE)
    assert not on_disk.storage.is_finished("saes")
    assert CHECKPOINT_EVERY <= latest_step(sae) < STEPS

    (disk / FILLER).unlink()
    ended = on_disk.run("train")
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    assert re.search(r"train: goes on from step [1-9]", ended.output)
    assert_same_bytes("saes", undisturbed.storage, on_disk.storage)
