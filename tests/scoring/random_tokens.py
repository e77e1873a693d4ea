"""Random tokens with many equal activations, for tests that compare with the loops."""

from collections.abc import Sequence

import numpy as np

from raysae.scoring import TopTokens, WeightSettings
from tests.reference.scoring import Token, as_batch

D_IN = 4
N_FEATURES = 6


def random_tokens(
    seed: int, n_samples: int = 8, length: int = 12, modalities: Sequence[int] = (0, 1, 2)
) -> list[Token]:
    """Draw tokens whose activations take few values, so that ties abound."""
    rng = np.random.default_rng(seed)
    tokens = []
    for ordinal in rng.permutation(n_samples).tolist():
        for position in range(int(rng.integers(0, length))):
            on = np.flatnonzero(rng.random(N_FEATURES) < 0.5).tolist()
            values = rng.choice([0.25, 0.5, 1.0, 1.5, 2.0], len(on)).tolist()
            act = tuple(rng.integers(-3, 4, D_IN).astype(float).tolist())
            modality = int(rng.choice(modalities))
            tokens.append(
                Token(ordinal, position, modality, act, dict(zip(on, values, strict=True)))
            )
    return tokens


def collect(tokens: Sequence[Token], settings: WeightSettings) -> TopTokens:
    """Offer tokens in one update."""
    top = TopTokens(N_FEATURES, D_IN, settings)
    codes, batch = as_batch(tokens, D_IN, sorted({token.ordinal for token in tokens}))
    top.update(codes, batch, np.array([token.ordinal for token in tokens], dtype=np.int64))
    return top
