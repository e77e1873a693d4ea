from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import SettingsError
from raysae.models import ModelSettings, load_hidden_state_model, plan_cache_memory
from tests.models.tiny import PINPOINTS, encode, picture, sample


@pytest.fixture
def settings(model_directory: Path) -> ModelSettings:
    return ModelSettings(path=str(model_directory), layer=2)


@pytest.fixture
def changed(model_directory: Path, tmp_path: Path) -> Any:
    """Copy the model with other values in one of its JSON files."""

    def change(file: str, values: dict[str, Any]) -> ModelSettings:
        directory = Path(shutil.copytree(model_directory, tmp_path / "copy"))
        content = json.loads((directory / file).read_text())
        for key, value in values.items():
            part = content if key in content else content["image_processor"]
            part[key] = value
        (directory / file).write_text(json.dumps(content))
        return ModelSettings(path=str(directory), layer=2)

    return change


def test_weights_are_counted_to_the_byte(settings: ModelSettings) -> None:
    model: Any = load_hidden_state_model(settings)
    loaded = sum(p.numel() for p in model._model.parameters())
    assert plan_cache_memory(settings, 100).weight_bytes == 4 * loaded
    half = replace(settings, dtype="bfloat16")
    assert plan_cache_memory(half, 100).weight_bytes == 2 * loaded


def test_image_extremes_bound_what_prepare_makes(settings: ModelSettings) -> None:
    plan = plan_cache_memory(settings, 100)
    model = load_hidden_state_model(settings)
    for size in ((28, 28), (90, 90), (200, 60), (50, 300), (13, 170)):
        ready = model.prepare(sample((size,)))
        assert ready.images[0].n_tokens <= plan.max_image_tokens
        assert len(ready.tensors["pixel_values"]) <= plan.max_image_tiles
    assert plan.max_image_tiles == 5
    assert plan.max_image_tokens == 16 + 8 * 9


def test_activations_grow_with_the_budget_and_with_eager_attention(
    settings: ModelSettings,
) -> None:
    small, large = plan_cache_memory(settings, 1000), plan_cache_memory(settings, 2000)
    assert small.activation_bytes < large.activation_bytes
    eager = plan_cache_memory(replace(settings, attention="eager"), 1000)
    assert eager.activation_bytes > small.activation_bytes
    assert small.bytes_per_token == 128


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"image_grid_pinpoints": [[28, 50]]}, "no multiples"),
        ("config.json", {"image_grid_pinpoints": PINPOINTS[:2]}, "image grids"),
        ("config.json", {"image_token_index": 5}, "image token"),
        ("processor_config.json", {"crop_size": {"height": 14, "width": 14}}, "crop size"),
    ],
)
def test_processor_and_model_that_differ(
    changed: Any, file: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load_hidden_state_model(changed(file, values))


def test_remote_code_is_not_followed(changed: Any) -> None:
    harmful = {"auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}}
    settings = changed("config.json", {"model_type": "llava_next"})
    config = Path(settings.path) / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **harmful}))
    (Path(settings.path) / "evil.py").write_text("raise SystemExit('remote code ran')")
    assert load_hidden_state_model(settings).prepare(sample()).n_tokens > 0


def test_backends_cut_alike_and_differ_in_pixels(settings: ModelSettings) -> None:
    given = replace(sample(), images=(encode(picture(90, 64)),))
    pixels = [
        load_hidden_state_model(replace(settings, image_backend=backend))
        .prepare(given)
        .tensors["pixel_values"]
        for backend in ("torchvision", "pil")
    ]
    assert pixels[0].shape == pixels[1].shape
    assert 0 < (pixels[0] - pixels[1]).abs().max() < 0.2
