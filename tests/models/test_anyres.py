from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextImageProcessor, LlavaNextProcessor

from raysae.models.anyres import anyres_grid
from tests.models.tiny import PATCH, PINPOINTS, TILE, build_model, build_processor
from tests.reference.models import image_tokens

PUBLISHED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
PROCESSOR = build_processor()
SHAPES = [(20, 30), (28, 28), (60, 60), (100, 37), (37, 100), (300, 50), (57, 203), (84, 29)]


@pytest.mark.parametrize(
    ("height", "width", "n_tokens"),
    [(336, 336, 1176), (480, 640, 2340), (512, 512, 2928), (2000, 2000, 2928)],
)
def test_published_token_counts(height: int, width: int, n_tokens: int) -> None:
    assert anyres_grid(height, width, PUBLISHED, 336, 14).n_tokens == n_tokens


@given(st.integers(1, 2500), st.integers(1, 2500))
@settings(max_examples=60, deadline=None)
def test_equals_slow_twin(height: int, width: int) -> None:
    grid = anyres_grid(height, width, PUBLISHED, 336, 14)
    slow = image_tokens(height, width, PUBLISHED, 336, 14)
    assert grid.n_tokens == len(slow)
    assert grid.newlines().tolist() == [box is None for box in slow]
    expected = np.array([box if box is not None else (np.nan,) * 4 for box in slow])
    np.testing.assert_allclose(grid.boxes(), expected, atol=1e-9)


@given(st.integers(1, 400), st.integers(1, 400))
@settings(max_examples=100, deadline=None)
def test_token_count_equals_transformers(height: int, width: int) -> None:
    counted = PROCESSOR._get_number_of_features(height, width, TILE, TILE)
    grid = anyres_grid(height, width, PINPOINTS, TILE, PATCH)
    assert grid.n_tokens == counted - 1  # transformers counts the class token, too


@given(st.integers(1, 2500), st.integers(1, 2500))
@settings(max_examples=200, deadline=None)
def test_published_grids_count_as_in_transformers(height: int, width: int) -> None:
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(),
        PROCESSOR.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
    )
    counted = processor._get_number_of_features(height, width, 336, 336)
    assert anyres_grid(height, width, PUBLISHED, 336, 14).n_tokens == counted


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_boxes_equal_what_transformers_packs(height: int, width: int) -> None:
    """Red is x, green is y, blue is 1: what each packed token averaged tells where it looked."""
    x = (np.arange(width) + 0.5) / width * 255
    y = (np.arange(height) + 0.5) / height * 255
    pixels = np.stack(np.broadcast_arrays(x[None], y[:, None], 255.0), axis=-1)
    tiles = PROCESSOR.image_processor(
        images=[Image.fromarray(pixels.astype(np.uint8))],
        return_tensors="pt",
        do_normalize=False,
    )["pixel_values"][0]
    features = torch.nn.functional.avg_pool2d(tiles, PATCH).flatten(2).transpose(1, 2)
    packed, _ = build_model().model.pack_image_features(
        [features], [[height, width]], "default", image_newline=torch.full((3,), -1.0)
    )
    grid = anyres_grid(height, width, PINPOINTS, TILE, PATCH)
    newline_n = grid.newlines()
    assert len(packed[0]) == grid.n_tokens
    assert (packed[0][:, 2] == -1).tolist() == newline_n.tolist()
    values = packed[0][~newline_n].numpy()
    boxes = grid.boxes()[~newline_n]
    seen = values[:, 2] > 0.2  # the rest is padding, up to a pixel
    centre = np.stack([boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]], axis=1) / 2
    assert np.abs(values[seen, :2] / values[seen, 2:] - centre[seen]).max() < 0.06


@pytest.mark.parametrize(("height", "width", "share"), [(60, 60, 1.0), (100, 37, 35 / 38)])
def test_boxes_tile_what_unpadding_leaves(height: int, width: int, share: float) -> None:
    """At 100×37 the model itself drops 3 of the image's 38 scaled columns of pixels."""
    grid = anyres_grid(height, width, PINPOINTS, TILE, PATCH)
    high = grid.boxes()[grid.side**2 :]
    high = high[~np.isnan(high[:, 0])]
    areas = (high[:, 2] - high[:, 0]) * (high[:, 3] - high[:, 1])
    assert areas.sum() == pytest.approx(share)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_sources_are_what_transformers_packs(height: int, width: int) -> None:
    """Each feature is its own number, each newline -1."""
    grid = anyres_grid(height, width, PINPOINTS, TILE, PATCH)
    numbers = torch.arange(grid.n_tiles * 16.0).view(grid.n_tiles, 16, 1)
    packed, _ = build_model().model.pack_image_features(
        [numbers], [[height, width]], "default", image_newline=torch.full((1,), -1.0)
    )
    assert grid.sources().tolist() == packed[0][:, 0].tolist()
