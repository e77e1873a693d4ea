"""Settings: what cannot be computed is refused by name."""

import pytest

from raysae.errors import SettingsError
from raysae.scoring import ScoreSettings, SelectionSettings, WeightSettings


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (WeightSettings, "n_samples", -1),
        (WeightSettings, "top_k", 0),
        (WeightSettings, "min_tokens", 0),
        (WeightSettings, "min_tokens", 6),
        (WeightSettings, "threshold", -0.5),
        (WeightSettings, "threshold", float("nan")),
        (WeightSettings, "features_per_token", -1),
        (WeightSettings, "candidates", "all"),
        (WeightSettings, "pairing", "some"),
        (ScoreSettings, "threshold", -1.0),
        (ScoreSettings, "deciding", -1),
        (ScoreSettings, "l0_reduction", "max"),
        (SelectionSettings, "fraction", 0.0),
        (SelectionSettings, "fraction", 1.5),
        (SelectionSettings, "order", "best"),
        (SelectionSettings, "n", 0),
    ],
)
def test_names_the_field(kind: type, field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=field):
        kind(**{field: value})


def test_fields_that_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match="joint-top-30"):
        WeightSettings(top_k=31, candidates="joint-top-30")
    with pytest.raises(SettingsError, match="min_score"):
        SelectionSettings(min_score=2.0, max_score=1.0)
