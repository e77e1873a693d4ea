"""LLaVA-NeXT's own configurations. The rest is in `test_vision_language`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import SettingsError
from raysae.models import ModelSettings, load_hidden_state_model
from tests.models.tiny import PINPOINTS


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"image_grid_pinpoints": [[28, 50]]}, "no multiples"),
        ("config.json", {"image_grid_pinpoints": PINPOINTS[:2]}, "image grids"),
        ("config.json", {"vision_feature_select_strategy": "full"}, "set it to 'default'"),
        ("processor_config.json", {"crop_size": {"height": 14, "width": 14}}, "crop size"),
        ("processor_config.json", {"image_processor_type": "ViTImageProcessor"}, "cuts images"),
    ],
)
def test_processor_and_model_that_differ(
    model_directory: Path, tmp_path: Path, file: str, values: dict[str, Any], message: str
) -> None:
    directory = Path(shutil.copytree(model_directory, tmp_path / "copy"))
    content = json.loads((directory / file).read_text())
    for key, value in values.items():
        part = content if key in content else content["image_processor"]
        part[key] = value
    (directory / file).write_text(json.dumps(content))
    with pytest.raises(SettingsError, match=message):
        load_hidden_state_model(ModelSettings(path=str(directory), layer=2))
