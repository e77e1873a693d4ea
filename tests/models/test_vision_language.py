"""What loading and planning promise for every vision-language model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, SiglipVisionConfig

from raysae.errors import DataError, SettingsError
from raysae.models import ModelSettings, load_hidden_state_model, model_size, plan_cache_memory
from tests.models.families import Family
from tests.models.tiny import encode, picture, sample


def settings_of(family: Family, **settings: Any) -> ModelSettings:
    path = str(family.directories["published"])
    return ModelSettings(**{"path": path, "layer": 2, **settings})


@pytest.fixture
def changed(family: Family, tmp_path: Path) -> Any:
    """Copy the model with other values in its config.json."""

    def change(**values: Any) -> ModelSettings:
        directory = Path(shutil.copytree(family.directories["published"], tmp_path / "copy"))
        content = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps({**content, **values}))
        return ModelSettings(path=str(directory), layer=2)

    return change


def test_weights_are_counted_to_the_byte(family: Family) -> None:
    model = family.load(layer=2)
    loaded = sum(p.numel() for p in model._model.parameters())
    plan = plan_cache_memory(settings_of(family), 100)
    assert (plan.weight_bytes, plan.load_bytes) == (4 * loaded, 4 * loaded)
    half = plan_cache_memory(settings_of(family, dtype="bfloat16"), 100)
    largest = max(p.numel() for p in model._model.parameters())
    assert (half.weight_bytes, half.load_bytes) == (2 * loaded, 2 * loaded + 4 * largest)


def test_image_extremes_bound_what_prepare_makes(family: Family) -> None:
    plan = plan_cache_memory(settings_of(family), 100)
    model = family.load()
    for size in ((28, 28), (90, 90), (200, 60), (50, 300), (13, 170)):
        ready = model.prepare(sample((size,)))
        assert ready.images[0].n_tokens <= plan.max_image_tokens
        assert len(ready.tensors["pixel_values"]) <= plan.max_image_tiles
    expected = {"llava_next": (16 + 8 * 9, 5), "llava": (16, 1)}
    assert (plan.max_image_tokens, plan.max_image_tiles) == expected[family.name]


def test_activations_grow_with_the_budget_and_with_eager_attention(family: Family) -> None:
    small = plan_cache_memory(settings_of(family), 1000)
    large = plan_cache_memory(settings_of(family), 2000)
    assert small.activation_bytes < large.activation_bytes
    eager = plan_cache_memory(settings_of(family, attention="eager"), 5000)
    assert eager.activation_bytes > plan_cache_memory(settings_of(family), 5000).activation_bytes
    assert small.bytes_per_token == 128


def test_dropped_images_cost_nothing(family: Family) -> None:
    shown = plan_cache_memory(settings_of(family), 100)
    dropped = plan_cache_memory(settings_of(family, images="drop"), 100)
    assert (dropped.max_image_tokens, dropped.max_image_tiles) == (0, 0)
    assert dropped.activation_bytes < shown.activation_bytes
    assert dropped.weight_bytes == shown.weight_bytes


def test_size_counts_the_whole_model(family: Family) -> None:
    size = model_size(str(family.directories["published"]))
    whole = family.whole_model
    assert size.parameters == sum(p.numel() for p in whole.parameters())
    tower = whole.model.vision_tower
    assert size.vision_parameters == sum(p.numel() for p in tower.parameters())
    assert size.text.n == len(whole.model.language_model.layers)


def test_backends_cut_alike_and_differ_in_pixels(family: Family) -> None:
    given = replace(sample(), images=(encode(picture(90, 64)),))
    pixels = [
        family.load(image_backend=backend).prepare(given).tensors["pixel_values"]
        for backend in ("torchvision", "pil")
    ]
    assert pixels[0].shape == pixels[1].shape
    assert 0 < (pixels[0] - pixels[1]).abs().max() < 0.2


@pytest.mark.parametrize("layers", [4, -5, [-2, 9]])
def test_states_that_the_tower_lacks(changed: Any, layers: int | list[int]) -> None:
    settings = changed(vision_feature_layer=layers)
    with pytest.raises(DataError, match="a vision tower that has 4"):
        load_hidden_state_model(settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_token_index": 5}, "image token is 3 to the processor but 5 to the model"),
        ({"vision_config": SiglipVisionConfig().to_dict()}, "'siglip_vision_model' tower"),
        ({"text_config": GPT2Config().to_dict()}, "'gpt2' text model that lacks"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised weights"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_models_of_another_kind(changed: Any, values: dict[str, Any], message: str) -> None:
    settings = changed(**values)
    with pytest.raises(SettingsError, match=message):
        load_hidden_state_model(settings)
