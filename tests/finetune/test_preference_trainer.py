from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from raysae.errors import DataError
from raysae.finetune.preference_trainer import TrainingWatcher

ARGUMENTS = SimpleNamespace(output_dir="/scratch")
STATE = SimpleNamespace(global_step=6, max_steps=9, is_world_process_zero=True)


def test_a_checkpoint_is_handed_on_with_the_last_steps_figures(capsys):
    reports = []
    watcher = TrainingWatcher(lambda directory, metrics: reports.append((directory, metrics)))
    watcher.on_log(ARGUMENTS, STATE, None, logs={"loss": 0.5, "rewards/margins": 0.25})
    watcher.on_log(ARGUMENTS, STATE, None, logs={"train_runtime": 3.0})
    watcher.on_save(ARGUMENTS, STATE, None)
    figures = {"step": 6.0, "loss": 0.5, "reward_margin": 0.25}
    assert reports == [(Path("/scratch/checkpoint-6"), figures)]
    printed = capsys.readouterr().out
    assert printed == "finetune: step 6/9, loss 0.5000, reward margin 0.2500\n"


def test_a_loss_that_is_no_number_is_not_reported():
    watcher = TrainingWatcher(None)
    with pytest.raises(DataError):
        watcher.on_log(ARGUMENTS, STATE, None, logs={"loss": float("nan")})
    watcher.on_save(ARGUMENTS, STATE, None)
