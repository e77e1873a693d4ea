from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from raysae.errors import SettingsError
from raysae.finetune import FinetuneRunSettings, FinetuneSettings


def test_each_dataclass_has_at_most_15_fields():
    for settings in (FinetuneSettings, FinetuneRunSettings):
        assert len(dataclasses.fields(settings)) <= 15
        for field in dataclasses.fields(settings):
            assert f"        {field.name}: " in settings.__doc__, field.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_steps": -1}, "finetune.max_steps"),
        ({"max_steps": 0, "epochs": 0.0}, "finetune.epochs"),
        ({"lr": float("nan")}, "finetune.lr"),
        ({"beta": 0.0}, "finetune.beta"),
        ({"eval_fraction": 1.0}, "finetune.eval_fraction"),
        ({"zero_stage": 1}, "finetune.zero_stage: must be one of 0, 2, 3, got 1"),
        ({"dtype": "float16"}, "finetune.dtype"),
        ({"scheduler": "step"}, "finetune.scheduler"),
        ({"seed": -1}, "finetune.seed"),
    ],
)
def test_an_impossible_setting_is_named(change, message):
    with pytest.raises(SettingsError, match=message):
        FinetuneSettings(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "tune.workers"),
        ({"cpus_per_worker": 0.0}, "tune.cpus_per_worker"),
        ({"offload": "disk"}, "tune.offload"),
        ({"max_retries": -1}, "tune.max_retries"),
        ({"max_rejected_fraction": 1.5}, "tune.max_rejected_fraction"),
    ],
)
def test_an_impossible_run_setting_is_named(change, message):
    with pytest.raises(SettingsError, match=message):
        FinetuneRunSettings(**change)


def test_the_global_batch_is_cut_into_equal_micro_batches():
    settings = FinetuneSettings(global_batch=32)
    assert FinetuneRunSettings(workers=4, per_device_batch=2).accumulation(settings) == 4
    with pytest.raises(SettingsError, match="no multiple of"):
        FinetuneRunSettings(workers=3, per_device_batch=2).accumulation(settings)


def test_offload_needs_its_zero_stage():
    run = FinetuneRunSettings(per_device_batch=1, offload="optimizer+parameters")
    with pytest.raises(SettingsError, match="zero_stage 3 or more, got 2"):
        run.accumulation(FinetuneSettings(zero_stage=2))
    run.accumulation(FinetuneSettings(zero_stage=3))


def test_epochs_decide_when_max_steps_is_0():
    settings = FinetuneSettings(max_steps=0, epochs=3, global_batch=32)
    assert settings.steps(100) == 10
    assert FinetuneSettings(max_steps=7).steps(100) == 7


def test_importing_the_settings_imports_nothing_heavy():
    code = "import sys, raysae.finetune; print({'torch', 'trl', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
