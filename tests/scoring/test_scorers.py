"""Scores: equal to the loops, independent of the batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.errors import DataError
from raysae.scoring import (
    SCORE_SCHEMA,
    SCORERS,
    FeatureWeights,
    ScoreSettings,
    active,
    score_batch,
)
from raysae.scoring.tokens import random_score
from tests.reference import scoring as twin
from tests.scoring.random_tokens import D_IN, N_FEATURES, random_tokens

VARIANTS = [
    ScoreSettings(deciding=2),
    ScoreSettings(threshold=0.0, bos_is_text=True, l0_reduction="sum"),
    ScoreSettings(threshold=0.5, drop_first_token=False, deciding=0),
]


def some_weights(seed: int) -> FeatureWeights:
    weight_f = np.random.default_rng(seed).normal(size=N_FEATURES).astype(np.float32)
    weight_f[0] = 0
    weight_f[4] = weight_f[2]
    none = np.zeros(N_FEATURES, dtype=np.int64)
    return FeatureWeights(weight_f, none.astype(np.int32), none.astype(np.int32), none, none)


def score(tokens, samples, weights, variant):
    codes, batch = twin.as_batch(tokens, D_IN, samples)
    ids = [f"id-{ordinal}" for ordinal in samples]
    return score_batch(codes, batch, weights, variant, sample_ids=ids, ordinals=samples)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(5))
def test_equals_loops(variant: ScoreSettings, seed: int) -> None:
    tokens = random_tokens(seed)
    weights = some_weights(seed)
    tables = score(tokens, list(range(8)), weights, variant)
    assert tuple(tables) == SCORERS
    for ordinal in range(8):
        mine = [token for token in tokens if token.ordinal == ordinal]
        sides = [token.side(bos_is_text=variant.bos_is_text) for token in mine]
        expected = twin.scores(mine, weights.weight_f.tolist(), variant)
        for name, value in expected.items():
            row = tables[name].to_pylist()[ordinal]
            assert row["score"] == pytest.approx(value, abs=1e-9)
            assert row["text_tokens"] == sides.count("text")
            assert row["image_tokens"] == sides.count("image")
        for name, shared_only in (("cosine-union", False), ("cosine-cooccurring", True)):
            row = tables[name].to_pylist()[ordinal]
            features = twin.deciding(
                mine, weights.weight_f.tolist(), variant, shared_only=shared_only
            )
            assert row["features"] == features
            assert row["contributions"] == weights.weight_f[features].tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), variant=st.sampled_from(VARIANTS), data=st.data())
def test_the_rest_of_the_batch_does_not_matter(
    seed: int, variant: ScoreSettings, data: st.DataObject
) -> None:
    tokens = random_tokens(seed)
    weights = some_weights(seed)
    whole = score(tokens, list(range(8)), weights, variant)
    samples = data.draw(st.permutations(range(8)))[: data.draw(st.integers(1, 8))]
    part = score([t for t in tokens if t.ordinal in samples], samples, weights, variant)
    for name in SCORERS:
        assert part[name].equals(whole[name].take(samples))


def test_blocks_of_samples_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = random_tokens(9)
    whole = score(tokens, list(range(8)), some_weights(1), VARIANTS[1])
    monkeypatch.setattr(active, "_FLAGS_AT_ONCE", 3 * N_FEATURES)
    assert score(tokens, list(range(8)), some_weights(1), VARIANTS[1]) == whole


def test_nothing_active_scores_zero() -> None:
    tokens = [twin.Token(0, 1, 0, (1, 0, 0, 0))]
    for samples in ([0], [0, 1], [1, 0]):
        tables = score(tokens, samples, some_weights(0), ScoreSettings())
        for name in set(SCORERS) - {"random"}:
            assert tables[name]["score"].to_pylist() == [0.0] * len(samples)
            assert tables[name].schema.equals(SCORE_SCHEMA)


def test_no_sample_gives_empty_tables() -> None:
    tables = score([], [], some_weights(0), ScoreSettings())
    assert all(len(table) == 0 for table in tables.values())


def test_one_modality_shares_nothing() -> None:
    tokens = random_tokens(1, modalities=[1])
    tables = score(tokens, list(range(8)), some_weights(0), ScoreSettings(threshold=0.0))
    assert not any(tables["cosine-cooccurring"]["score"].to_pylist())
    assert any(tables["cosine-union"]["score"].to_pylist())


def test_the_first_special_token_counts_only_by_setting() -> None:
    tokens = [
        twin.Token(0, 0, 2, (1, 0, 0, 0), {1: 3.0}),
        twin.Token(0, 1, 1, (1, 0, 0, 0), {1: 3.0}),
        twin.Token(0, 2, 2, (1, 0, 0, 0), {1: 3.0}),
    ]
    for bos_is_text in (False, True):
        tables = score(tokens, [0], some_weights(0), ScoreSettings(bos_is_text=bos_is_text))
        row = tables["l0-cooccurring"].to_pylist()[0]
        assert (row["score"], row["text_tokens"]) == (float(bos_is_text), int(bos_is_text))


def test_mean_is_the_sum_over_the_number_of_features() -> None:
    tables = score(random_tokens(2), list(range(8)), some_weights(3), VARIANTS[1])
    count = tables["l0-cooccurring"]["score"].to_numpy()
    total = tables["cosine-cooccurring"]["score"].to_numpy()
    mean = tables["cosine-cooccurring-mean"]["score"].to_numpy()
    np.testing.assert_array_equal(mean, total / np.maximum(count, 1))


def test_random_depends_on_seed_and_id_alone() -> None:
    tables = [
        score(random_tokens(tokens), list(range(8)), some_weights(tokens), ScoreSettings(seed=seed))
        for tokens, seed in ((0, 7), (1, 7), (0, 8))
    ]
    scores = [table["random"]["score"].to_pylist() for table in tables]
    assert scores[0] == scores[1] == [random_score(f"id-{o}", 7) for o in range(8)]
    assert not set(scores[0]) & set(scores[2])


def test_refuses_what_does_not_fit() -> None:
    tokens = random_tokens(1)
    codes, batch = twin.as_batch(tokens, D_IN, list(range(8)))
    arguments = (codes, batch, some_weights(0), ScoreSettings())
    with pytest.raises(DataError, match="but 2 sample ids"):
        score_batch(*arguments, sample_ids=["a", "b"], ordinals=[0, 1])
