"""Top tokens: equal to the loops, whatever the order, sharding and merge tree."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.errors import DataError, SettingsError
from raysae.sae import Codes
from raysae.sample import TokenBatch
from raysae.scoring import FeatureWeights, TopTokens, WeightSettings
from raysae.scoring.state import top_tokens_to_arrow
from tests.reference import scoring as twin
from tests.scoring.random_tokens import D_IN, N_FEATURES, collect, random_tokens

VARIANTS = [
    WeightSettings(top_k=3),
    WeightSettings(top_k=3, min_tokens=3, pairing="ith"),
    WeightSettings(top_k=4, candidates="joint-top-30", bos_is_text=True),
    WeightSettings(top_k=2, candidates="joint-top-30", pairing="ith", threshold=1.0),
    WeightSettings(top_k=5, threshold=0.5, features_per_token=2, bos_is_text=True),
]


def assert_same_weights(a: FeatureWeights, b: FeatureWeights) -> None:
    for name in ("weight_f", "n_text_f", "n_image_f", "fired_text_f", "fired_image_f"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=True)


def assert_same_state(a: TopTokens, b: TopTokens) -> None:
    assert_same_weights(a.weights(), b.weights())
    np.testing.assert_array_equal(a.table.value_gk, b.table.value_gk)
    np.testing.assert_array_equal(a.table.row_gk, b.table.row_gk)
    for left, right in zip(top_tokens_to_arrow(a), top_tokens_to_arrow(b), strict=True):
        assert left.equals(right, check_metadata=True)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_loops(variant: WeightSettings, seed: int) -> None:
    tokens = random_tokens(seed, n_samples=4 + 6 * seed)
    top = collect(tokens, variant)
    weights = top.weights()
    for feature in range(N_FEATURES):
        expected = twin.top_tokens(tokens, feature, variant)
        for side, got in top.top_tokens(feature)._asdict().items():
            assert got == [
                (t.ordinal, t.position, t.token_id, t.features[feature]) for t in expected[side]
            ]
        assert weights.weight_f[feature] == pytest.approx(
            twin.weight(tokens, feature, variant), abs=1e-6
        )
        assert weights.n_text_f[feature] == len(expected["text"])
        assert weights.n_image_f[feature] == len(expected["image"])
        assert weights.fired_text_f[feature] == twin.fired(tokens, feature, "text", variant)
        assert weights.fired_image_f[feature] == twin.fired(tokens, feature, "image", variant)


@settings(max_examples=60, deadline=None)
@given(
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 10**6),
    n_parts=st.integers(1, 7),
    data=st.data(),
)
def test_order_and_sharding_and_merge_tree_do_not_matter(
    variant: WeightSettings, seed: int, n_parts: int, data: st.DataObject
) -> None:
    tokens = random_tokens(seed)
    whole = collect(tokens, variant)
    rng = np.random.default_rng(seed)
    shuffled = [tokens[i] for i in rng.permutation(len(tokens))]
    parts = [collect(shuffled[i::n_parts], variant) for i in range(n_parts)]
    while len(parts) > 1:
        left = data.draw(st.integers(0, len(parts) - 1))
        right = data.draw(st.integers(0, len(parts) - 1).filter(lambda i: i != left))  # noqa: B023
        parts[left].merge(parts[right])
        del parts[right]
    assert_same_state(parts[0], whole)


@pytest.mark.parametrize("variant", VARIANTS)
def test_many_updates_equal_one(variant: WeightSettings) -> None:
    tokens = random_tokens(3, n_samples=30)
    split = collect(tokens[:5], variant)
    for start in range(5, len(tokens), 5):
        split.merge(collect(tokens[start : start + 5], variant))
        places = int((split.table.row_gk >= 0).sum())
        assert len(split.pool) <= 1.5 * places
    assert_same_state(split, collect(tokens, variant))


def test_merging_leaves_the_other_as_it_is() -> None:
    tokens = random_tokens(5)
    half = len(tokens) // 2
    first, second = (collect(part, VARIANTS[0]) for part in (tokens[:half], tokens[half:]))
    before = second.weights()
    first.merge(second)
    first.canonicalize()
    assert_same_weights(second.weights(), before)


def test_nothing_seen_gives_no_weight() -> None:
    weights = collect([], VARIANTS[0]).weights()
    assert not weights.weight_f.any()
    assert not weights.n_text_f.any()


@pytest.mark.parametrize("modality", [0, 1, 2])
@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[2]])
def test_one_modality_gives_no_weight(modality: int, variant: WeightSettings) -> None:
    weights = collect(random_tokens(1, modalities=[modality]), variant).weights()
    assert not weights.weight_f.any()
    assert (weights.fired_image_f > 0).all() == (modality == 1)


def test_equal_values_go_by_ordinal_then_position() -> None:
    tokens = [twin.Token(o, p, 0, (1, 0, 0, 0), {2: 1.0}) for o in (4, 1, 3) for p in (1, 0)]
    top = collect(tokens, WeightSettings(top_k=3))
    assert [token[:2] for token in top.top_tokens(2).text] == [(1, 0), (1, 1), (3, 0)]


def test_memory_is_bounded_by_the_retained_tokens() -> None:
    variant = WeightSettings(top_k=2)
    top = TopTokens(3, 8, variant)
    rng = np.random.default_rng(0)
    for ordinal in range(200):
        tokens = [
            twin.Token(
                ordinal, p, p % 2, tuple(rng.random(8)), {p % 3: float(rng.random() + ordinal)}
            )
            for p in range(20)
        ]
        codes, batch = twin.as_batch(tokens, 8, [ordinal])
        top.update(codes, batch, np.full(20, ordinal))
    assert len(top.pool) <= 1.5 * 3 * 2 * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_hidden_states_keep_their_dtype(dtype: torch.dtype) -> None:
    tokens = random_tokens(2)
    codes, batch = twin.as_batch(tokens, D_IN, range(8))
    batch = replace(batch, acts_nd=batch.acts_nd.to(dtype))
    top = TopTokens(N_FEATURES, D_IN, VARIANTS[0])
    top.update(codes, batch, np.array([token.ordinal for token in tokens]))
    assert top.pool.dtype == dtype
    assert_same_weights(top.weights(), collect(tokens, VARIANTS[0]).weights())


def test_a_token_given_twice_is_refused() -> None:
    tokens = random_tokens(7)
    top = collect(tokens, VARIANTS[0])
    top.merge(collect(tokens, VARIANTS[0]))
    with pytest.raises(DataError, match="given twice"):
        top.weights()


def test_refuses_what_does_not_fit() -> None:
    top = collect(random_tokens(1), VARIANTS[0])
    with pytest.raises(SettingsError, match="cannot be merged"):
        top.merge(collect([], VARIANTS[1]))
    with pytest.raises(DataError, match="Feature must lie"):
        top.top_tokens(N_FEATURES)
    codes, batch = twin.as_batch([twin.Token(0, 0, 0, (1, 0, 0, 0), {1: 1.0})], D_IN, [0])
    with pytest.raises(DataError, match="as many ordinals"):
        top.update(codes, batch, np.arange(2))
    with pytest.raises(DataError, match="another batch or SAE"):
        top.update(Codes(codes.token_m, codes.feature_m + 9, codes.value_m), batch, np.arange(1))
    with pytest.raises(DataError, match="one dtype"):
        top.update(
            Codes(codes.token_m, codes.feature_m, codes.value_m + 9),
            replace(batch, acts_nd=batch.acts_nd.half()),
            np.array([99]),
        )


def test_wide_hidden_states_are_bit_equal_over_shards() -> None:
    rng = np.random.default_rng(0)
    n_tokens, d_in, n_features = 1500, 300, 200
    acts_nd = torch.from_numpy(rng.standard_normal((n_tokens, d_in), dtype=np.float32))
    fires_nf = rng.random((n_tokens, n_features)) < 0.1
    values_nf = rng.random((n_tokens, n_features), dtype=np.float32) + 0.1
    modality_n = rng.integers(0, 3, n_tokens).astype(np.uint8)

    def collected(rows: np.ndarray) -> TopTokens:
        token, feature = np.nonzero(fires_nf[rows])
        columns = (
            token.astype(np.int32),
            feature.astype(np.int32),
            values_nf[rows][token, feature],
        )
        batch = TokenBatch(
            np.zeros(len(rows), dtype=np.int32),
            rows.astype(np.int32),
            rows.astype(np.int32),
            modality_n[rows],
            acts_nd[torch.from_numpy(rows)],
        )
        top = TopTokens(n_features, d_in, WeightSettings())
        top.update(Codes(*map(torch.from_numpy, columns)), batch, np.zeros(len(rows), np.int64))
        return top

    whole = collected(np.arange(n_tokens))
    shards = [collected(rows) for rows in np.array_split(rng.permutation(n_tokens), 9)]
    merged = shards.pop()
    for shard in shards:
        merged.merge(shard)
    assert_same_state(merged, whole)
