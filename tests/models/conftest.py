"""The tiny model in the three key styles that exist, saved once per session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from raysae.models import HiddenStateModel, ModelSettings, load_hidden_state_model
from tests.models.tiny import build_model, save_model


@pytest.fixture(scope="session")
def whole_model() -> Any:
    return build_model()


def _publish(directory: Path) -> None:
    """Give the vision tower the names that the published checkpoints have."""

    def published(name: str) -> str:
        return name.replace("vision_tower.", "vision_tower.vision_model.")

    for file in directory.glob("*.safetensors"):
        tensors = load_file(file)
        save_file({published(k): v for k, v in tensors.items()}, file, {"format": "pt"})
    index = directory / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"] = {published(k): v for k, v in content["weight_map"].items()}
    index.write_text(json.dumps(content))


@pytest.fixture(scope="session")
def model_directories(
    whole_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    directories = {
        "published": save_model(whole_model, root / "published"),
        "legacy": save_model(whole_model, root / "legacy"),
        "new": save_model(whole_model, root / "new", save_original_format=False),
        "single-file": save_model(whole_model, root / "single", max_shard_size="1GB"),
    }
    _publish(directories["published"])
    return directories


@pytest.fixture(scope="session")
def model_directory(model_directories: dict[str, Path]) -> Path:
    return model_directories["published"]


@pytest.fixture(scope="session")
def tiny(model_directory: Path) -> HiddenStateModel:
    return load_hidden_state_model(ModelSettings(path=str(model_directory), layer=3))
