"""Learning rate and λ over the steps."""

import pytest

from raysae.sae import SaeSettings
from raysae.sae.schedule import l1_coefficient, learning_rate

SETTINGS = SaeSettings(
    lr=1.0, steps=100, lr_warmup_steps=4, lr_decay_steps=10, l1_coefficient=5.0, l1_warmup_steps=10
)


def test_learning_rate() -> None:
    assert [learning_rate(SETTINGS, step) for step in (0, 1, 3, 4, 89, 90)] == [
        *(0.25, 0.5, 1.0, 1.0, 1.0, 1.0)
    ]
    assert learning_rate(SETTINGS, 91) == pytest.approx(0.9)
    assert learning_rate(SETTINGS, 99) == pytest.approx(0.1)
    assert learning_rate(SETTINGS, 100) == learning_rate(SETTINGS, 150) == 0.0


def test_l1_coefficient() -> None:
    assert [l1_coefficient(SETTINGS, step) for step in (0, 5, 10, 99)] == [0.0, 2.5, 5.0, 5.0]
    assert l1_coefficient(SaeSettings(l1_coefficient=2.0), 0) == 2.0
