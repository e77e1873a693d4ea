"""Sides of tokens, the draw of samples, the random score."""

import numpy as np
import pytest
import torch

from raysae.errors import DataError
from raysae.sae import Codes
from raysae.scoring import draw_ordinals, tokens
from raysae.scoring.tokens import check_codes, random_score, token_sides

FROZEN_DRAW = [90, 259, 277, 645, 997]
FROZEN_SCORE = 0.1514915986068629


def test_sides() -> None:
    modality_n = np.array([2, 0, 1, 2, 2], dtype=np.uint8)
    position_n = np.array([0, 1, 2, 3, 0], dtype=np.int32)
    assert token_sides(modality_n, position_n, bos_is_text=False).tolist() == [2, 0, 1, 2, 2]
    assert token_sides(modality_n, position_n, bos_is_text=True).tolist() == [0, 0, 1, 2, 0]
    assert modality_n.tolist() == [2, 0, 1, 2, 2]
    with pytest.raises(DataError, match="Modality 3"):
        token_sides(modality_n + 1, position_n, bos_is_text=False)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_the_draw_does_not_depend_on_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw_ordinals(500, 50, seed=1)
    monkeypatch.setattr(tokens, "_DRAW_BLOCK", block)
    np.testing.assert_array_equal(draw_ordinals(500, 50, seed=1), expected)
    assert (np.diff(expected) > 0).all()
    assert len(expected) == 50


def test_draws() -> None:
    assert draw_ordinals(5, 0, seed=1).tolist() == [0, 1, 2, 3, 4]
    assert draw_ordinals(5, 9, seed=1).tolist() == [0, 1, 2, 3, 4]
    assert draw_ordinals(0, 9, seed=1).tolist() == []
    assert draw_ordinals(1000, 10, seed=1).tolist() != draw_ordinals(1000, 10, seed=2).tolist()
    # Frozen: a change would change which samples existing weights were measured on.
    assert draw_ordinals(1000, 5, seed=42).tolist() == FROZEN_DRAW
    assert abs(draw_ordinals(10**5, 10**4, seed=3).mean() / 10**5 - 0.5) < 0.02


def test_random_scores_are_uniform_and_frozen() -> None:
    scores = [random_score(f"id-{number}", 42) for number in range(2000)]
    assert 0 <= min(scores) < 0.01
    assert 0.99 < max(scores) < 1
    assert abs(np.mean(scores) - 0.5) < 0.02
    assert random_score("id-0", 42) == FROZEN_SCORE
    assert random_score("id-0", 42) != random_score("id-0", 43)


def test_codes_of_another_batch_are_refused() -> None:
    index = torch.tensor([0, 3], dtype=torch.int32)
    codes = Codes(index, index, torch.ones(2))
    check_codes(codes, 4, 4)
    with pytest.raises(DataError, match="tokens must lie"):
        check_codes(codes, 3, 4)
    with pytest.raises(DataError, match="features must lie"):
        check_codes(codes, 4, 3)
