from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from raysae.errors import SettingsError
from raysae.models import ModelSettings, load_hidden_state_model, plan_cache_memory
from raysae.models.registry import ARCHITECTURES


def test_loads_and_plans_by_model_type(model_directory: Path) -> None:
    settings = ModelSettings(path=str(model_directory), layer=1)
    model = load_hidden_state_model(settings, device="cpu")
    assert (model.d_in, model.layer) == (32, 1)
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert plan_cache_memory(settings, 100).d_in == 32


def test_unknown_architecture(model_directory: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(model_directory, tmp_path / "copy"))
    (directory / "config.json").write_text(json.dumps({"model_type": "clip"}))
    known = ", ".join(ARCHITECTURES)
    with pytest.raises(SettingsError, match=f"'clip' model, but raysae reads {known} and"):
        load_hidden_state_model(ModelSettings(path=str(directory), layer=0))


def test_causal_language_models_need_no_row_of_the_table(
    model_directory: Path, tmp_path: Path
) -> None:
    directory = Path(shutil.copytree(model_directory, tmp_path / "copy"))
    (directory / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(SettingsError, match="holds a 'mamba' text model that lacks"):
        load_hidden_state_model(ModelSettings(path=str(directory), layer=0))
    (directory / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    with pytest.raises(SettingsError, match="'gemma3' model of several parts"):
        plan_cache_memory(ModelSettings(path=str(directory), layer=0), 100)


def test_no_such_model() -> None:
    with pytest.raises(SettingsError, match="download"):
        plan_cache_memory(ModelSettings(path="llava-hf/llava-v1.6-mistral-7b-hf"), 100)
