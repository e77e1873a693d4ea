from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from raysae.sample import Sample
from raysae.scoring import WEIGHTS_SCHEMA, draw_ordinals
from raysae.storage import read_json
from tests.reference import scoring as reference
from tests.reference.scoring import Token
from tests.stages.chains import unfinished_files
from tests.stages.conftest import Made
from tests.stages.recomputed import SlowChain
from tests.storages import path_of

pytestmark = pytest.mark.ray

FEATURES = range(0, 128, 9)


@pytest.fixture(scope="module")
def drawn_tokens(made: Made) -> list[Token]:
    """The tokens of the drawn samples, recomputed one sample at a time."""
    chain = made.chain
    drawn = set(draw_ordinals(96, 48, chain.settings.weights.seed).tolist())
    slow = SlowChain(chain.settings.model.layer, path_of(chain.sae.directory), chain.settings.sae.k)
    return [
        token
        for sample in chain.corpus.all_samples()
        if isinstance(sample, Sample) and sample.ordinal in drawn
        for token in slow.tokens(sample)
    ]


def test_weights_are_those_of_the_loops(made: Made, drawn_tokens: list[Token]) -> None:
    chain = made.chain
    table = pq.read_table(path_of(chain.weights.directory) / "weights.parquet")
    assert table.schema.equals(WEIGHTS_SCHEMA)
    assert table["feature"].to_pylist() == list(range(128))
    settings = chain.settings.weights
    expected = [reference.weight(drawn_tokens, feature, settings) for feature in FEATURES]
    assert [table["weight"][f].as_py() for f in FEATURES] == pytest.approx(expected, abs=1e-4)
    assert len({round(weight, 3) for weight in expected}) > 3


def test_metadata_counts_the_drawn_samples_and_their_tokens(
    made: Made, drawn_tokens: list[Token]
) -> None:
    metadata = made.chain.weights.metadata()
    assert (metadata["rows"], metadata["rejected"]) == (48, 0)
    assert metadata["tokens"] == len(drawn_tokens)
    assert unfinished_files(path_of(made.chain.weights.directory)) == []


def test_the_strongest_features_come_by_weight_with_their_top_tokens(
    made: Made, drawn_tokens: list[Token]
) -> None:
    chain = made.chain
    strongest = read_json(path_of(chain.weights.directory) / "strongest.json")["features"]
    weights = pq.read_table(path_of(chain.weights.directory) / "weights.parquet")[
        "weight"
    ].to_pylist()
    positive = [feature for feature in range(128) if weights[feature] > 0]
    ranked = sorted(positive, key=lambda feature: (-weights[feature], feature))
    assert [entry["feature"] for entry in strongest] == ranked[: len(strongest)]
    assert len(strongest) == min(24, len(ranked))
    first = strongest[0]
    top = reference.top_tokens(drawn_tokens, first["feature"], chain.settings.weights)
    for side in ("text", "image"):
        places = [(ordinal, position) for ordinal, position, _, _ in first[side]]
        assert places == [(token.ordinal, token.position) for token in top[side]]
