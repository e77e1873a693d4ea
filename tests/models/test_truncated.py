from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from raysae.errors import DataError, SettingsError
from raysae.models import ModelSettings, checkpoint, load_hidden_state_model, plan_cache_memory
from raysae.models.truncated import cut_text_config
from tests.models.tiny import BLOCKS, build_config

LAYER = 2
# Of three; the projector reads the last state but one.
TOWER_BLOCKS = 2


def is_needed(name: str) -> bool:
    """Whether a tensor is needed, by its parts: blocks by number, nothing behind the last."""
    parts = name.split(".")
    if "lm_head" in parts or ("language_model" in parts and "norm" in parts):
        return False
    if "layers" not in parts:
        return True
    block = int(parts[parts.index("layers") + 1])
    return block < TOWER_BLOCKS if "vision_tower" in parts else block <= LAYER


def load(directory: Path, layer: int = LAYER) -> Any:
    return load_hidden_state_model(ModelSettings(path=str(directory), layer=layer))


@pytest.fixture
def damaged_copy(model_directories: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_directories["single-file"], tmp_path / "copy"))


def rewrite(directory: Path, change: Any) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("style", ["published", "legacy", "new", "single-file"])
def test_needed_weights_are_the_checkpoints(
    style: str, model_directories: dict[str, Path], whole_model: Any
) -> None:
    loaded = load(model_directories[style])._model
    expected = whole_model.model.state_dict()
    state = loaded.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in state.items())
    assert state["image_newline"].equal(expected["image_newline"])
    assert len(loaded.language_model.layers) == LAYER + 1
    assert isinstance(loaded.language_model.norm, torch.nn.Identity)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    assert len(loaded.vision_tower.encoder.layers) == TOWER_BLOCKS
    assert state.keys() == {name for name in expected if is_needed(name)}


@pytest.mark.parametrize("style", ["published", "new"])
def test_files_of_later_blocks_are_not_opened(
    style: str,
    model_directories: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = Path(shutil.copytree(model_directories[style], tmp_path / "copy"))
    weight_map = json.loads((directory / checkpoint.INDEX).read_text())["weight_map"]
    needed = {file for name, file in weight_map.items() if is_needed(name)}
    later = set(weight_map.values()) - needed
    assert later
    for file in later:
        (directory / file).write_bytes(b"not to be opened")
    opened: list[str] = []

    def record(path: Path, **kwargs: Any) -> Any:
        opened.append(path.name)
        return safe_open(path, **kwargs)

    monkeypatch.setattr(checkpoint, "safe_open", record)
    load(directory)
    assert sorted(opened) == sorted(needed)


@pytest.mark.parametrize(
    "name",
    [
        "image_newline",
        "vision_tower.pre_layrnorm.bias",
        "language_model.model.layers.2.mlp.up_proj.weight",
    ],
)
def test_missing_tensor_is_named(damaged_copy: Path, name: str) -> None:
    rewrite(damaged_copy, lambda tensors: tensors.pop(name))
    stem = name.removeprefix("language_model.model.")
    with pytest.raises(DataError, match=f"lacks tensors: .*{stem}"):
        load(damaged_copy)


@pytest.mark.parametrize(
    "name",
    [
        "language_model.model.layers.3.mlp.up_proj.weight",
        "vision_tower.encoder.layers.2.mlp.fc1.weight",
    ],
)
def test_tensor_of_a_later_block_may_be_missing(damaged_copy: Path, name: str) -> None:
    rewrite(damaged_copy, lambda tensors: tensors.pop(name))
    load(damaged_copy)


def test_unknown_tensor_is_named(damaged_copy: Path) -> None:
    name = "language_model.model.layers.0.self_attn.q_proj.bias"
    rewrite(damaged_copy, lambda tensors: tensors.update({name: torch.zeros(32)}))
    with pytest.raises(DataError, match=r"unknown tensors: .*q_proj\.bias"):
        load(damaged_copy)


def test_stored_buffers_are_no_unknown_tensors(damaged_copy: Path) -> None:
    stored = {
        "vision_tower.vision_model.embeddings.position_ids": torch.arange(17),
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
    }
    rewrite(damaged_copy, lambda tensors: tensors.update(stored))
    load(damaged_copy)


def test_tensor_of_another_shape(damaged_copy: Path) -> None:
    rewrite(damaged_copy, lambda tensors: tensors.update(image_newline=torch.zeros(31)))
    with pytest.raises(DataError, match=r"do not fit its config\.json"):
        load(damaged_copy)


@pytest.mark.parametrize("layer", [-2, BLOCKS, 99])
def test_layer_that_is_not_there(model_directory: Path, layer: int) -> None:
    with pytest.raises(SettingsError, match=f"choose 0 to {BLOCKS - 1}"):
        load(model_directory, layer)


def test_a_layer_is_named_for_every_model_but_the_shipped_one(model_directory: Path) -> None:
    assert ModelSettings().with_layer.layer == 4
    assert ModelSettings(layer=2).with_layer.layer == 2
    for work in (load_hidden_state_model, lambda settings: plan_cache_memory(settings, 64)):
        with pytest.raises(SettingsError, match=rf"say after which block .* 0 to {BLOCKS - 1}"):
            work(ModelSettings(path=str(model_directory)))


def test_layer_types_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_config().text_config
    config.layer_types = ["full_attention"] * BLOCKS
    cut_text_config(config, LAYER)
    assert len(config.layer_types) == LAYER + 1


def test_transformers_reports_as_before(model_directory: Path) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(model_directory)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
