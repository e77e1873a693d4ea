from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysae.errors import SettingsError
from raysae.finetune.model import (
    check_model,
    load_model,
    load_policy,
    load_reference,
    lora_config,
    policy_dtype,
)
from tests.finetune.tiny import settings_for
from tests.models.tiny import build_model


def test_all_weights_are_loaded(model):
    loaded = load_model(model, "float32").state_dict()
    for name, weight in build_model().state_dict().items():
        assert torch.equal(loaded[name], weight), name


def test_a_missing_weight_is_no_random_one(model, tmp_path):
    broken = shutil.copytree(model, tmp_path / "broken")
    index = json.loads((broken / "model.safetensors.index.json").read_bytes())
    name = next(name for name in index["weight_map"] if "image_newline" in name)
    file = broken / index["weight_map"].pop(name)
    weights = load_file(file)
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SettingsError, match=r"lacks 1 weights of the model.*image_newline"):
        load_model(broken, "float32")


def test_the_vision_tower_is_frozen_and_the_projector_is_not(model):
    policy = load_policy(model, settings_for(model))
    frozen = {name for name, weight in policy.named_parameters() if not weight.requires_grad}
    assert frozen
    assert all("vision_tower" in name for name in frozen)
    assert not any("vision_tower" in n for n, w in policy.named_parameters() if w.requires_grad)
    unfrozen = load_policy(model, settings_for(model, freeze_vision=False))
    assert all(weight.requires_grad for weight in unfrozen.parameters())


def test_the_reference_is_another_model_without_gradients(model):
    reference = load_reference(model, settings_for(model))
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert not reference.training
    assert load_reference(model, settings_for(model, lora_rank=4)) is None


def test_weights_are_float32_where_they_are_the_masters(model):
    assert policy_dtype(settings_for(model, dtype="bfloat16", zero_stage=0)) == "float32"
    assert policy_dtype(settings_for(model, dtype="bfloat16", zero_stage=2)) == "bfloat16"


def test_lora_reaches_every_linear_layer_of_the_language_model_only(model):
    from peft import get_peft_model

    assert lora_config(settings_for(model)) is None
    config = lora_config(settings_for(model, lora_rank=4))
    adapted = get_peft_model(load_model(model, "float32"), config)
    names = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(names) == 2 * 7 * 6
    assert all("language_model" in name for name in names)


@pytest.mark.parametrize(
    ("config", "message"),
    [("[]", "no JSON object"), ('{"model_type": "opt"}', "'opt'")],
)
def test_a_directory_that_is_no_model_is_refused(model, tmp_path, config, message):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(SettingsError, match=message):
        check_model(tmp_path, settings_for(model))


def test_lora_with_a_trainable_tower_is_refused(model):
    check_model(model, settings_for(model, lora_rank=4))
    with pytest.raises(SettingsError, match=r"finetune\.freeze_vision"):
        check_model(model, settings_for(model, lora_rank=4, freeze_vision=False))
