from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from raysae.finetune.data import open_preferences
from raysae.finetune.export import save_tuned
from raysae.finetune.trainer import build_trainer
from tests.finetune.tiny import forget_accelerate, task_for


def trained(model, rows, tmp_path, **changes):
    task = task_for(model, rows, tmp_path / "out", max_steps=1, **changes)
    ordered = open_preferences(rows).select(range(4))
    trainer = build_trainer(task, ordered, tmp_path / "scratch")
    trainer.train()
    save_tuned(trainer, model, task.output, task.settings)
    return trainer, task.output


def logits(model, trainer):
    batch = dict(next(iter(trainer.get_train_dataloader())))
    del batch["completion_mask"]
    with torch.no_grad():
        return model(**batch).logits


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    forget_accelerate()


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 4}], ids=["full", "lora"])
def test_a_reloaded_model_gives_the_same_logits(model, rows, tmp_path, changes):
    trainer, output = trained(model, rows, tmp_path, **changes)
    reloaded, info = AutoModelForImageTextToText.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = logits(trainer.model.eval(), trainer)
    assert torch.allclose(logits(reloaded.eval(), trainer), expected, atol=1e-4)
    first = AutoModelForImageTextToText.from_pretrained(model)
    assert not torch.allclose(logits(first.eval(), trainer), expected, atol=1e-3)


def test_the_files_are_safetensors_and_json_only(model, rows, tmp_path):
    _, output = trained(model, rows, tmp_path)
    assert {p.suffix for p in output.iterdir()} == {".safetensors", ".json", ".jinja"}
    template = (model / "chat_template.jinja").read_text()
    assert AutoProcessor.from_pretrained(output).chat_template == template


def test_weights_are_saved_in_the_settings_dtype(model, rows, tmp_path):
    _, output = trained(model, rows, tmp_path, dtype="bfloat16")
    assert json.loads((output / "config.json").read_bytes())["dtype"] == "bfloat16"
    reloaded = AutoModelForImageTextToText.from_pretrained(output)
    assert {weight.dtype for weight in reloaded.parameters()} == {torch.bfloat16}
