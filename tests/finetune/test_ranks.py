"""Two ranks under DDP, ZeRO-2 and ZeRO-3 do what one process does, also after a resume."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from raysae.finetune import train
from raysae.finetune.model import load_model
from tests.finetune.ranks import RESUMED, SCENARIOS
from tests.finetune.tiny import forget_accelerate, task_for


@pytest.fixture(scope="module")
def results(model, rows, tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tests.finetune.ranks"]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(port), model, rows, root],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=(root / f"{rank}.log").open("w"),
        )
        for rank in (0, 1)
    ]
    try:
        codes = [rank.wait(timeout=150) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert codes == [0, 0], (root / "0.log").read_text()[-3000:]
    return root


@pytest.fixture(scope="module")
def one_process(model, rows, tmp_path_factory):
    """An undisturbed run of one process without DeepSpeed."""
    root = tmp_path_factory.mktemp("one")
    result = train(task_for(model, rows, root / "out", eval_fraction=0.25), root / "scratch")
    forget_accelerate()
    return result, root / "out"


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_ranks_equal_one_process(results, one_process, name):
    expected, _ = one_process
    found = json.loads((results / name / "result.json").read_text())["whole"]
    for ours, theirs in zip(found["steps"], expected["steps"], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=2e-5)
        assert ours["reward_margin"] == pytest.approx(theirs["reward_margin"], abs=2e-4)
    assert found["held_out"] == pytest.approx(expected["held_out"], abs=2e-4)
    assert (found["train_rows"], found["eval_rows"]) == (9, 3)


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_equals_an_undisturbed_one(results, name):
    both = json.loads((results / name / "result.json").read_text())
    assert both["resumed"]["resumed_at_step"] == 2
    assert both["whole"]["resumed_at_step"] == 0
    losses = [[step["loss"] for step in both[run]["steps"]] for run in ("whole", "resumed")]
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert both["whole"]["held_out"] == pytest.approx(both["resumed"]["held_out"], abs=1e-6)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_weights_of_all_ranks_are_in_the_checkpoint(results, one_process, name):
    expected = load_model(one_process[1], "float32").state_dict()
    found = load_model(results / name / "out", "float32").state_dict()
    for key, weight in expected.items():
        assert found[key].shape == weight.shape
        assert (found[key] - weight).abs().max() < 1e-4, key
