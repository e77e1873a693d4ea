"""LLaVA-1.5's own: one square, cropped or padded. The rest is in `test_vision`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPImageProcessor, LlavaImageProcessor

from raysae.errors import SettingsError
from raysae.models import ModelSettings, load_hidden_state_model
from tests.models.families import LAYER, SAMPLES, Family, prompt, whole_run
from tests.models.tiny import TILE, build_llava, build_llava_processor, save_model
from tests.reference.models import square_tokens

SIZE: dict[str, Any] = {
    "size": {"shortest_edge": TILE},
    "crop_size": {"height": TILE, "width": TILE},
}


@pytest.fixture
def llava(families: dict[str, Family]) -> Family:
    return families["llava"]


def load(directory: Path) -> Any:
    return load_hidden_state_model(ModelSettings(path=str(directory), layer=LAYER))


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_feature_select_strategy": "full"},
        {"vision_feature_layer": [-3, -2]},
        {"vision_feature_layer": -1},
        {"vision_feature_layer": [0]},
        {"vision_feature_layer": [0, -1, 1]},
        {"vision_feature_layer": 1, "vision_feature_select_strategy": "full"},
    ],
)
def test_other_features_equal_the_whole_model(changes: dict[str, Any], tmp_path: Path) -> None:
    strategy = changes.get("vision_feature_select_strategy", "default")
    processor = build_llava_processor(vision_feature_select_strategy=strategy)
    whole = build_llava(**changes)
    model = load(save_model(whole, tmp_path / "other", processor))
    for given in SAMPLES[:3]:
        ready = model.prepare(given)
        ids, acts = whole_run(whole, processor, given, prompt(given))
        assert ready.token_id_n.tolist() == ids
        torch.testing.assert_close(model.hidden_states([ready]).acts_nd, acts, atol=1e-6, rtol=0)
    assert {image.n_tokens for image in ready.images} == {17 if strategy == "full" else 16}
    assert len(model.image_boxes(given, ready)) == 3 * 16


@pytest.mark.parametrize(
    "image_processor",
    [
        LlavaImageProcessor(**SIZE, do_pad=True),
        LlavaImageProcessor(**SIZE),
        CLIPImageProcessor(**{**SIZE, "size": {"shortest_edge": 35}}),
        CLIPImageProcessor(**{**SIZE, "size": {"height": TILE, "width": TILE}}),
    ],
    ids=["padded", "llavas-own", "larger", "squeezed"],
)
def test_other_processors_equal_the_whole_model(
    llava: Family, image_processor: Any, tmp_path: Path
) -> None:
    processor = build_llava_processor(image_processor=image_processor)
    model = load(save_model(llava.whole_model, tmp_path / "other", processor))
    given = SAMPLES[2]
    ready = model.prepare(given)
    _, acts = whole_run(llava.whole_model, processor, given, prompt(given))
    torch.testing.assert_close(model.hidden_states([ready]).acts_nd, acts, atol=1e-6, rtol=0)


@pytest.mark.parametrize("padded", [False, True])
def test_boxes_equal_slow_twin(llava: Family, padded: bool, tmp_path: Path) -> None:
    image_processor = LlavaImageProcessor(**SIZE, do_pad=padded)
    processor = build_llava_processor(image_processor=image_processor)
    model = load(save_model(llava.whole_model, tmp_path / "other", processor))
    given = SAMPLES[2]
    ready = model.outline(given)
    positions = np.flatnonzero(ready.token_id_n == 3).tolist()
    slow = [
        (index, *box)
        for index, (height, width) in enumerate([(20, 90), (28, 28), (200, 13)])
        for box in square_tokens(height, width, edge=28, crop=28, patch=7, padded=padded)
    ]
    boxes = [
        (b.position, b.image, b.left, b.top, b.right, b.bottom)
        for b in model.image_boxes(given, ready)
    ]
    expected = [(position, *box) for position, box in zip(positions, slow, strict=True)]
    np.testing.assert_allclose(boxes, expected, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": {"height": 14, "width": 14}}, r"crop size is \(14, 14\) to the processor"),
        ({"crop_size": {"height": TILE, "width": 14}}, "crop size"),
        ({"size": {"shortest_edge": 20}}, "no square of 28 can be cut"),
        ({"size": {"shortest_edge": 28, "longest_edge": 50}}, "set do_resize, do_center_crop"),
        ({"do_resize": False}, "set do_resize, do_center_crop"),
        ({"do_center_crop": False}, "set do_resize, do_center_crop"),
    ],
)
def test_processors_that_make_no_square(
    llava: Family, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    processor = build_llava_processor(image_processor=CLIPImageProcessor(**{**SIZE, **changes}))
    directory = save_model(llava.whole_model, tmp_path / "other", processor)
    with pytest.raises(SettingsError, match=message):
        load(directory)
