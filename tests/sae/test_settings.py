"""Settings refuse what cannot be trained and name the field."""

import math
from typing import Any

import pytest

from raysae.errors import SettingsError
from raysae.sae import SaeSettings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", "sparse"),
        ("normalize", "layer"),
        ("d_sae", 0),
        ("k", 0),
        ("k", 65),
        ("aux_k", -1),
        ("l1_coefficient", -1.0),
        ("lr", -1e-3),
        ("lr", math.nan),
        ("aux_coefficient", math.inf),
        ("steps", 0),
        ("batch_tokens", 0),
        ("dead_after_tokens", 0),
        ("lr_warmup_steps", -1),
        ("lr_decay_steps", 11),
        ("seed", -1),
    ],
)
def test_error_names_the_field(field: str, value: Any) -> None:
    given = {"d_sae": 64, "k": 4, "aux_k": 8, "steps": 10} | {field: value}
    with pytest.raises(SettingsError, match=rf"sae\.{field}"):
        SaeSettings(**given)


def test_k_does_not_matter_to_relu() -> None:
    SaeSettings(architecture="relu", d_sae=8)


def test_learning_rate_rule() -> None:
    assert SaeSettings(d_sae=2**14).peak_lr == pytest.approx(2e-4)
    assert SaeSettings(d_sae=2**16).peak_lr == pytest.approx(1e-4)
    assert SaeSettings(lr=3e-4).peak_lr == 3e-4
