from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessor, LlavaImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from raysae.errors import RejectedSampleError
from raysae.models.square import SquareView
from tests.reference.models import square_tokens

VIEW = SquareView(padded=False, edge=336, exact=False, crop=336, patch=14, class_token=False)
SIZES = st.integers(1, 2500)


@given(SIZES, SIZES, st.booleans(), st.sampled_from([336, 400]))
@settings(max_examples=60, deadline=None)
def test_boxes_equal_slow_twin(height: int, width: int, padded: bool, edge: int) -> None:
    if max(height, width) > 100 * min(height, width):
        return
    grid = replace(VIEW, padded=padded, edge=edge).grid(height, width)
    slow = square_tokens(height, width, edge=edge, crop=336, patch=14, padded=padded)
    assert grid.n_tokens == len(slow) == 576
    np.testing.assert_allclose(grid.boxes(), slow, atol=1e-9)


def test_class_token_has_no_place() -> None:
    grid = replace(VIEW, class_token=True).grid(300, 400)
    assert grid.n_tokens == 577
    assert np.isnan(grid.boxes()[0]).all()
    assert not np.isnan(grid.boxes()[1:]).any()
    assert grid.sources().tolist() == list(range(577))
    assert not grid.newlines().any()


@pytest.mark.parametrize("size", [(40, 40), (100, 37), (37, 100), (300, 50), (28, 29)])
@pytest.mark.parametrize("size_setting", [{"shortest_edge": 28}, {"shortest_edge": 35}, None])
@pytest.mark.parametrize(
    ("processor_class", "padded"),
    [
        (CLIPImageProcessor, False),
        (CLIPImageProcessorPil, False),
        (LlavaImageProcessor, False),
        (LlavaImageProcessor, True),
        (LlavaImageProcessorPil, True),
    ],
)
def test_boxes_tell_where_the_processors_looked(
    processor_class: Any, padded: bool, size_setting: Any, size: tuple[int, int]
) -> None:
    """Red is x, green is y, blue is 1: what each patch averaged tells what it saw."""
    height, width = size
    x = (np.arange(width) + 0.5) / width * 255
    y = (np.arange(height) + 0.5) / height * 255
    pixels = np.stack(np.broadcast_arrays(x[None], y[:, None], 255.0), axis=-1)
    settings = {"do_pad": True, "image_mean": [0.0] * 3} if padded else {}
    process = processor_class(
        size=size_setting or {"height": 28, "width": 28},
        crop_size={"height": 28, "width": 28},
        do_normalize=False,
        **settings,
    )
    square = process(Image.fromarray(pixels.astype(np.uint8)), return_tensors="pt")["pixel_values"]
    values = torch.nn.functional.avg_pool2d(square, 7).flatten(2)[0].T.numpy()
    edge = size_setting["shortest_edge"] if size_setting else 28
    view = SquareView(
        padded=padded, edge=edge, exact=not size_setting, crop=28, patch=7, class_token=False
    )
    boxes = view.grid(height, width).boxes()
    seen = values[:, 2] > 0.2  # the rest is padding, up to a pixel
    assert seen.sum() >= 4
    centre = np.stack([boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]], axis=1) / 2
    assert np.abs(values[seen, :2] / values[seen, 2:] - centre[seen]).max() < 0.06
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert (areas[~seen] < areas.max() / 2).all()


@pytest.mark.parametrize(
    ("height", "width", "padded"), [(1, 8000, False), (1, 20000, True), (20000, 1, True)]
)
def test_images_that_would_fill_the_memory(height: int, width: int, padded: bool) -> None:
    with pytest.raises(RejectedSampleError, match="unprocessable-image"):
        replace(VIEW, padded=padded, edge=3000, crop=3000).grid(height, width)
    assert replace(VIEW, padded=padded).grid(100, 2000).n_tokens == 576
