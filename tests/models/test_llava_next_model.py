"""LLaVA-NeXT's own: grids of tiles and newlines. The rest is in `test_vision`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raysae.models import HiddenStateModel
from raysae.sample import Modality
from tests.models.families import SAMPLES, Family
from tests.models.tiny import PINPOINTS, sample
from tests.reference.models import image_tokens


@pytest.mark.parametrize("newline", ["image", "special"])
def test_modality_of_newlines(llava_next: Family, newline: str) -> None:
    ready = llava_next.load(newline=newline).outline(SAMPLES[2])
    sizes = [(20, 90), (28, 28), (200, 13)]
    slow = [box for h, w in sizes for box in image_tokens(h, w, PINPOINTS, 28, 7)]
    modality_m = ready.modality_n[ready.token_id_n == 3]
    expected = Modality[newline.upper()]
    assert [expected if box is None else Modality.IMAGE for box in slow] == modality_m.tolist()


def test_paper_mode_makes_a_base_tile_and_a_flat_grid(llava_next: Family) -> None:
    ready = llava_next.load(image_mode="paper-336").prepare(sample(((200, 50), (20, 90))))
    assert [(image.height, image.width, image.n_tokens) for image in ready.images] == [
        (28, 28, 16 + 16 + 4)
    ] * 2
    assert len(ready.tensors["pixel_values"]) == 2 * 3


def test_boxes_equal_slow_twin(tiny: HiddenStateModel) -> None:
    given = SAMPLES[2]
    ready = tiny.outline(given)
    positions = np.flatnonzero(ready.token_id_n == 3).tolist()
    sizes = [(20, 90), (28, 28), (200, 13)]
    slow = [
        (index, box)
        for index, (height, width) in enumerate(sizes)
        for box in image_tokens(height, width, PINPOINTS, 28, 7)
    ]
    expected = [
        (position, index, *box)
        for position, (index, box) in zip(positions, slow, strict=True)
        if box is not None
    ]
    boxes = [
        (b.position, b.image, b.left, b.top, b.right, b.bottom)
        for b in tiny.image_boxes(given, ready)
    ]
    np.testing.assert_allclose(boxes, expected, atol=1e-9)


def test_a_black_patch_changes_its_own_tokens_first(tiny: HiddenStateModel) -> None:
    """Tokens before a changed patch's first token keep their hidden states: attention is causal."""
    ready = tiny.prepare(sample(((56, 56),)))
    changed = ready.tensors["pixel_values"].clone()
    changed[4, :, -7:, -7:] = 0  # the last patch of the last tile
    other = replace(ready, tensors={"pixel_values": changed})
    same_n = (tiny.hidden_states([ready]).acts_nd == tiny.hidden_states([other]).acts_nd).all(1)
    first = ready.images[0]
    base_and_upper_tiles = 4 + 16 + 4 * 9
    assert first.n_tokens == 16 + 8 * 9
    assert same_n[:base_and_upper_tiles].all()
    assert not same_n[4 + first.n_tokens - 2]
