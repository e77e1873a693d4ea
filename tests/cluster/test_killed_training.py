"""Training ranks and their driver are lost after a checkpoint."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.cluster.content import history, read, sae_tensors
from tests.cluster.harness import TRAIN_RANK, kill, wait_until_idle
from tests.cluster.settings import CHECKPOINT_EVERY, STEPS, TUNE_STEPS

pytestmark = pytest.mark.cluster


def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint(undisturbed, runner):
    runner.storage.take(undisturbed.storage, "activations")
    job = runner.start("train")
    wait_for_checkpoint(job, runner, undisturbed)
    kill(job.process(TRAIN_RANK))
    assert_the_same_sae(job.wait(), undisturbed, runner.storage)


def test_training_whose_driver_was_killed_is_completed_by_the_next(undisturbed, runner):
    runner.storage.take(undisturbed.storage, "activations")
    job = runner.start("train")
    driver = job.driver()
    sae = wait_for_checkpoint(job, runner, undisturbed)
    kill(driver)
    assert job.wait().result is None
    wait_until_idle(runner.head.process.pid)
    assert not runner.storage.is_finished("saes")
    leave_half_a_checkpoint(sae / "work" / "checkpoints")
    assert_the_same_sae(runner.run("train"), undisturbed, runner.storage)


def test_tuning_whose_driver_was_killed_is_completed_by_the_next(undisturbed, runner):
    storage = runner.storage
    storage.take(undisturbed.storage, "activations", "saes", "weights", "scores", "subsets")
    tuned = storage.sibling(undisturbed.storage, "tuned")
    job = runner.start("finetune")
    driver = job.driver()
    job.wait_until(lambda: list(tuned.glob("work/checkpoints/step-*.json")), "a checkpoint")
    kill(driver)
    assert job.wait().result is None
    wait_until_idle(runner.head.process.pid)
    assert not storage.is_finished("tuned")

    ended = runner.run("finetune")
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    before, after = (
        read(s.artifact("tuned") / "metadata.json") for s in (undisturbed.storage, storage)
    )
    assert before["id"] == after["id"]
    assert 2 <= after["resumed_at_step"] < TUNE_STEPS
    assert [step["step"] for step in after["steps"]] == list(range(1, TUNE_STEPS + 1))
    losses = ([step["loss"] for step in metadata["steps"]] for metadata in (before, after))
    np.testing.assert_allclose(*losses, atol=1e-5)


def wait_for_checkpoint(job, runner, undisturbed):
    """Wait until a checkpoint is complete, and return the SAE's directory."""
    sae = runner.storage.sibling(undisturbed.storage, "saes")
    job.wait_until(lambda: list(sae.glob("work/checkpoints/step-*.json")), "a checkpoint")
    return sae


def leave_half_a_checkpoint(checkpoints):
    """Add what a machine leaves that lost its power while a checkpoint was written."""
    newest = read(max(checkpoints.glob("step-*.json")))
    (name,) = newest["files"]
    whole = (checkpoints / newest["token"] / name).read_bytes()
    (checkpoints / "half").mkdir()
    (checkpoints / "half" / ".tmp-0123").write_bytes(whole[: len(whole) // 2])
    (checkpoints / "half" / name).write_bytes(whole)
    (checkpoints / ".tmp-0123").write_text(f'{{"token": "half", "step": {STEPS}')


def assert_the_same_sae(ended, undisturbed, storage):
    """It went on from a checkpoint, and nobody could tell from the result."""
    assert ended.exit_code == ended.client == 0, ended.output[-6000:]
    steps = [int(step) for step in re.findall(r"train: goes on from step (\d+)", ended.output)]
    assert len(steps) == 1, ended.output[-6000:]
    assert CHECKPOINT_EVERY <= steps[0] < STEPS
    assert steps[0] % CHECKPOINT_EVERY == 0
    before, after = undisturbed.storage.artifact("saes"), storage.artifact("saes")
    assert before.name == after.name
    expected, found = sae_tensors(before), sae_tensors(after)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    assert history(after) == history(before)
    logged = [point["step"] for point in history(after)]
    assert logged == sorted(set(logged))
    assert logged == list(range(STEPS // 100, STEPS + 1, STEPS // 100))
    assert not (after / "work").exists()
