"""The model's actors and a training rank are lost while training reads from the actors."""

from __future__ import annotations

import pytest

from tests.cluster.harness import ACTOR, TRAIN_RANK, kill
from tests.cluster.runner import Runner, Undisturbed
from tests.cluster.test_killed_training import assert_the_same_sae, wait_for_checkpoint

pytestmark = pytest.mark.cluster

STREAMED = (
    "--reading.stream=true",
    "--reading.mix_shards=2",
    "--run.cpus_per_actor=0.5",
    "--run.token_budget=1024",
)


@pytest.fixture(scope="module")
def streamed(head, tiny_model, tmp_path_factory) -> Undisturbed:
    """What a streamed training has made that nothing happened to."""
    runner = Runner.below(head, tmp_path_factory.mktemp("streamed") / "all", tiny_model)
    ended = runner.run("train", *STREAMED)
    assert ended.exit_code == 0, ended.output[-6000:]
    return Undisturbed(runner.storage, {"train": ended})


def test_a_killed_actor_and_a_killed_rank_change_nothing(streamed, runner):
    job = runner.start("train", *STREAMED)
    kill(job.process(ACTOR))
    wait_for_checkpoint(job, runner, streamed)
    kill(job.process(ACTOR))
    kill(job.process(TRAIN_RANK))
    assert_the_same_sae(job.wait(), streamed, runner.storage)
    for storage in (streamed.storage, runner.storage):
        assert not (storage.root / "activations").exists()
