"""Planted features: what each score says of rows whose image was swapped."""

import numpy as np
import pytest

from raysae.interpret.auc import auc
from raysae.scoring import (
    FeatureWeights,
    ScoreSettings,
    SelectionSettings,
    TopTokens,
    WeightSettings,
    score_batch,
    select,
)
from tests.reference.planted import PlantedCorpus, PlantedSettings, planted_corpus


@pytest.fixture(scope="module", params=[0, 1, 2])
def corpus(request: pytest.FixtureRequest) -> PlantedCorpus:
    return planted_corpus(PlantedSettings(seed=request.param))


def measured(corpus: PlantedCorpus, settings: WeightSettings) -> FeatureWeights:
    top = TopTokens(corpus.settings.n_features, corpus.settings.d_in, settings)
    top.update(corpus.codes, corpus.batch, corpus.ordinals_n)
    return top.weights()


def scored(corpus: PlantedCorpus, weights: FeatureWeights) -> dict:
    return score_batch(
        corpus.codes,
        corpus.batch,
        weights,
        ScoreSettings(),
        sample_ids=corpus.sample_ids,
        ordinals=range(corpus.settings.rows),
    )


VARIANTS = [
    WeightSettings(),
    WeightSettings(pairing="ith"),
    WeightSettings(candidates="joint-top-30", min_tokens=5, features_per_token=50),
]


@pytest.mark.parametrize("settings", VARIANTS)
def test_concepts_weigh_most(corpus: PlantedCorpus, settings: WeightSettings) -> None:
    weight_f = measured(corpus, settings).weight_f
    concepts = corpus.settings.concepts
    # The others fire on the wrong modality now and then: the dictionary is not orthogonal.
    assert np.median(weight_f[:concepts]) > 1.5 * np.median(weight_f[concepts:])


@pytest.mark.parametrize("settings", VARIANTS)
def test_cooccurring_tells_swapped_rows_and_union_rewards_them(
    corpus: PlantedCorpus, settings: WeightSettings
) -> None:
    tables = scored(corpus, measured(corpus, settings))
    aucs = {
        name: auc(score_s[~corpus.is_swapped], score_s[corpus.is_swapped])
        for name, score_s in ((n, table["score"].to_numpy()) for n, table in tables.items())
    }
    assert aucs["cosine-cooccurring"] >= 0.95
    assert aucs["l0-cooccurring"] >= 0.95
    assert aucs["cosine-union"] <= 0.35
    assert 0.4 < aucs["random"] < 0.6


def test_the_subset_is_cleaner_than_the_corpus(corpus: PlantedCorpus) -> None:
    table = scored(corpus, measured(corpus, WeightSettings()))["cosine-cooccurring"]
    kept = select(table, SelectionSettings(fraction=0.3)).kept["ordinal"].to_numpy()
    assert corpus.is_swapped[kept].mean() < 0.05 < corpus.is_swapped.mean()


def test_deciding_features_are_shared_concepts(corpus: PlantedCorpus) -> None:
    table = scored(corpus, measured(corpus, WeightSettings()))["cosine-cooccurring"]
    intact = table.filter(~corpus.is_swapped)
    first = [features[0] for features in intact["features"].to_pylist()]
    assert max(first) < corpus.settings.concepts
