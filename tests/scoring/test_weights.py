"""Feature weights: the vectorised mean of cosines, its limits, and its table."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from raysae.errors import DataError
from raysae.scoring import WEIGHTS_SCHEMA, FeatureWeights, weights
from raysae.scoring.weights import cross_modal_weights
from tests.reference.scoring import cosine
from tests.scoring.random_tokens import collect, random_tokens
from tests.scoring.test_top_tokens import VARIANTS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_mean_of_all_pairs(dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_BLOCK_VALUES", block)
    acts_pd = torch.randn(40, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = np.random.default_rng(0).integers(0, 40, (7, 2, 5))
    rows[1, 0, 3:] = -1
    rows[2, 1, :] = -1
    got = cross_modal_weights(acts_pd, rows, min_tokens=1, pairing="all")
    acts = acts_pd.float().tolist()
    for feature in range(7):
        pairs = [
            cosine(acts[t], acts[i])
            for t in rows[feature, 0]
            for i in rows[feature, 1]
            if t >= 0 and i >= 0
        ]
        expected = sum(pairs) / len(pairs) if pairs else 0.0
        assert got[feature] == pytest.approx(expected, abs=1e-6)


def test_fewer_tokens_than_asked_give_no_weight() -> None:
    rows = np.array([[[0, 1], [2, -1]], [[0, 1], [2, 3]]])
    acts_pd = torch.ones(4, 3)
    strict = cross_modal_weights(acts_pd, rows, min_tokens=2, pairing="all")
    assert strict.tolist() == pytest.approx([0, 1], abs=1e-6)
    lenient = cross_modal_weights(acts_pd, rows, min_tokens=1, pairing="ith")
    assert lenient.tolist() == pytest.approx([1, 1], abs=1e-6)


def test_a_zero_state_is_like_nothing() -> None:
    acts_pd = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    rows = np.array([[[0], [1]]])
    assert cross_modal_weights(acts_pd, rows, min_tokens=1, pairing="all").tolist() == [0]


@pytest.mark.parametrize("pairing", ["all", "ith"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_names_the_feature_of_a_state_that_is_not_finite(bad: float, pairing: str) -> None:
    acts_pd = torch.tensor([[1.0, bad], [1.0, 0.0]])
    rows = np.array([[[1, -1], [1, -1]], [[1, -1], [0, -1]]])
    with pytest.raises(DataError, match="feature 1"):
        cross_modal_weights(acts_pd, rows, min_tokens=1, pairing=pairing)
    assert cross_modal_weights(acts_pd, rows[:1], min_tokens=1, pairing=pairing).tolist() == [1]


def test_table_round_trip(tmp_path) -> None:
    measured = collect(random_tokens(3), VARIANTS[0]).weights()
    pq.write_table(measured.to_table(), tmp_path / "weights.parquet")
    table = pq.read_table(tmp_path / "weights.parquet")
    assert table.schema.equals(WEIGHTS_SCHEMA)
    shuffled = table.take(np.random.default_rng(0).permutation(len(table)))
    for read in (FeatureWeights.from_table(table), FeatureWeights.from_table(shuffled)):
        assert read.to_table().equals(measured.to_table())


def test_refuses_another_table() -> None:
    table = collect(random_tokens(3), VARIANTS[0]).weights().to_table()
    with pytest.raises(DataError, match="lack the column"):
        FeatureWeights.from_table(table.drop_columns(["weight"]))
    with pytest.raises(DataError, match="exactly once"):
        FeatureWeights.from_table(table.slice(1))


def test_summary() -> None:
    counts = np.array([2, 0, 1])
    measured = FeatureWeights(
        np.array([0.5, 0.0, 0.25], dtype=np.float32),
        counts.astype(np.int32),
        counts.astype(np.int32),
        counts,
        np.array([0, 0, 4]),
    )
    assert measured.summary() == {
        "features": 3,
        "weighted": 2,
        "mean": 0.375,
        "min": 0.25,
        "max": 0.5,
        "fired_text": 2,
        "fired_image": 1,
        "fired_both": 1,
    }
