from __future__ import annotations

import pytest

from raysae.errors import SettingsError
from raysae.finetune import FinetuneRunSettings, FinetuneSettings
from raysae.finetune.deepspeed_config import deepspeed_config


def test_stage_0_runs_without_deepspeed():
    assert deepspeed_config(FinetuneSettings(zero_stage=0), FinetuneRunSettings()) is None


def test_batches_agree_with_the_trainers():
    run = FinetuneRunSettings(workers=2, per_device_batch=4)
    config = deepspeed_config(FinetuneSettings(global_batch=32, dtype="bfloat16"), run)
    assert config["train_batch_size"] == 32
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_accumulation_steps"] == 4
    assert config["bf16"] == {"enabled": True}


def test_nothing_is_compiled_for_an_optimizer():
    config = deepspeed_config(FinetuneSettings(), FinetuneRunSettings())
    assert config["zero_allow_untested_optimizer"] is True
    assert config["zero_force_ds_cpu_optimizer"] is False
    assert "optimizer" not in config


def test_stage_3_gathers_weights_when_it_saves():
    zero = deepspeed_config(FinetuneSettings(zero_stage=3), FinetuneRunSettings())
    assert zero["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


def test_offload():
    run = FinetuneRunSettings(offload="optimizer+parameters", use_gpu=True)
    zero = deepspeed_config(FinetuneSettings(zero_stage=3), run)["zero_optimization"]
    assert zero["offload_optimizer"] == zero["offload_param"]
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": True}
    with pytest.raises(SettingsError, match="offload"):
        deepspeed_config(FinetuneSettings(zero_stage=0), run)
