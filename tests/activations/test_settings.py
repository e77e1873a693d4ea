from __future__ import annotations

import math
from typing import Any

import pytest

from raysae.activations import CacheSettings
from raysae.errors import SettingsError


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens_per_sample": -1},
        {"image_fraction": 1.01},
        {"image_fraction": math.nan},
        {"max_norm_ratio": -1.0},
        {"max_norm_ratio": math.nan},
    ],
)
def test_impossible_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        CacheSettings(**wrong)
