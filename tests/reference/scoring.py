"""Scoring by loops: the obvious twins of `raysae.scoring`, one token and one feature at a time."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from raysae.sae import Codes
from raysae.sample import Modality, TokenBatch
from raysae.scoring import ScoreSettings, SelectionSettings, WeightSettings


@dataclass(frozen=True)
class Token:
    """One token with its hidden state and its active features."""

    ordinal: int
    position: int
    modality: int
    act: tuple[float, ...]
    features: dict[int, float] = field(default_factory=dict)

    @property
    def token_id(self) -> int:
        return 1000 * self.ordinal + self.position

    def side(self, *, bos_is_text: bool) -> str | None:
        if self.modality == Modality.TEXT:
            return "text"
        if self.modality == Modality.IMAGE:
            return "image"
        return "text" if bos_is_text and self.position == 0 else None


def as_batch(
    tokens: Sequence[Token], d_in: int, samples: Sequence[int]
) -> tuple[Codes, TokenBatch]:
    """Lay tokens out as the package wants them; `samples` lists the ordinals that index them."""
    entries = [
        (n, feature, token.features[feature])
        for n, token in enumerate(tokens)
        for feature in sorted(token.features)
    ]
    codes = Codes(
        torch.tensor([entry[0] for entry in entries], dtype=torch.int32),
        torch.tensor([entry[1] for entry in entries], dtype=torch.int32),
        torch.tensor([entry[2] for entry in entries], dtype=torch.float32),
    )
    batch = TokenBatch(
        np.array([samples.index(token.ordinal) for token in tokens], dtype=np.int32),
        np.array([token.position for token in tokens], dtype=np.int32),
        np.array([token.token_id for token in tokens], dtype=np.int32),
        np.array([token.modality for token in tokens], dtype=np.uint8),
        torch.tensor([token.act for token in tokens], dtype=torch.float32).reshape(-1, d_in),
    )
    return codes, batch


def offered(token: Token, settings: WeightSettings) -> dict[int, float]:
    """Return the features that a token offers itself to."""
    passing = {f: v for f, v in token.features.items() if v > settings.threshold}
    ranked = sorted(passing, key=lambda f: (-passing[f], f))
    limit = settings.features_per_token or len(ranked)
    return {feature: passing[feature] for feature in ranked[:limit]}


def top_tokens(
    tokens: Sequence[Token], feature: int, settings: WeightSettings
) -> dict[str, list[Token]]:
    """Return a feature's text and image tokens, highest activation first."""
    candidates = [
        token
        for token in tokens
        if token.side(bos_is_text=settings.bos_is_text) and feature in offered(token, settings)
    ]
    candidates.sort(key=lambda t: (-t.features[feature], t.ordinal, t.position))
    if settings.candidates == "joint-top-30":
        candidates = candidates[:30]
    return {
        side: [t for t in candidates if t.side(bos_is_text=settings.bos_is_text) == side][
            : settings.top_k
        ]
        for side in ("text", "image")
    }


def fired(tokens: Sequence[Token], feature: int, side: str, settings: WeightSettings) -> int:
    """Count the tokens of a side on which a feature exceeds δ."""
    return sum(
        token.side(bos_is_text=settings.bos_is_text) == side
        and token.features.get(feature, 0.0) > settings.threshold
        for token in tokens
    )


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def weight(tokens: Sequence[Token], feature: int, settings: WeightSettings) -> float:
    """Return a feature's weight (SAE-V, Eq. 7)."""
    top = top_tokens(tokens, feature, settings)
    if min(len(top["text"]), len(top["image"])) < settings.min_tokens:
        return 0.0
    if settings.pairing == "ith":
        pairs = list(zip(top["text"], top["image"], strict=False))
    else:
        pairs = list(itertools.product(top["text"], top["image"]))
    return sum(cosine(text.act, image.act) for text, image in pairs) / len(pairs)


def scores(
    tokens: Sequence[Token], weights: Sequence[float], settings: ScoreSettings
) -> dict[str, float]:
    """Score one sample by every scorer but `random`."""
    active: dict[str, set[int]] = {"text": set(), "image": set()}
    l0 = []
    for token in tokens:
        side = token.side(bos_is_text=settings.bos_is_text)
        if side is None:
            continue
        active[side] |= {f for f, v in token.features.items() if v > settings.threshold}
        if not (settings.drop_first_token and token.position == 0):
            l0.append(sum(value > 0 for value in token.features.values()))
    union = active["text"] | active["image"]
    shared = active["text"] & active["image"]
    sums = {
        "cosine-union": sum(weights[f] for f in sorted(union)),
        "cosine-cooccurring": sum(weights[f] for f in sorted(shared)),
    }
    return {
        **sums,
        "cosine-union-mean": sums["cosine-union"] / len(union) if union else 0.0,
        "cosine-cooccurring-mean": sums["cosine-cooccurring"] / len(shared) if shared else 0.0,
        "l0": sum(l0) / (max(len(l0), 1) if settings.l0_reduction == "mean" else 1),
        "l0-cooccurring": float(len(shared)),
    }


def deciding(
    tokens: Sequence[Token],
    weights: Sequence[float],
    settings: ScoreSettings,
    *,
    shared_only: bool,
) -> list[int]:
    """Return a sample's most decisive features, by |ω|, then number."""
    active: dict[str | None, set[int]] = {"text": set(), "image": set(), None: set()}
    for token in tokens:
        side = token.side(bos_is_text=settings.bos_is_text)
        active[side] |= {f for f, v in token.features.items() if v > settings.threshold}
    text, image = active["text"], active["image"]
    chosen = [f for f in (text & image if shared_only else text | image) if weights[f] != 0]
    return sorted(chosen, key=lambda f: (-abs(weights[f]), f))[: settings.deciding]


def select(rows: Sequence[tuple[str, int, float]], settings: SelectionSettings) -> list[str]:
    """Return the ids of the kept rows (sample id, ordinal, score), best first."""
    first: dict[str, tuple[str, int, float]] = {}
    for row in rows:
        if row[0] not in first or row[1:] < first[row[0]][1:]:
            first[row[0]] = row
    low = -math.inf if settings.min_score is None else settings.min_score
    high = math.inf if settings.max_score is None else settings.max_score
    scored = [row for row in first.values() if not math.isnan(row[2])]
    within = [row for row in scored if low <= row[2] <= high]
    sign = -1 if settings.order == "highest" else 1
    ranked = sorted(within, key=lambda row: (sign * row[2], row[0].encode()))
    if settings.n is not None:
        count = settings.n
    elif settings.min_score is None and settings.max_score is None:
        count = max(1, math.floor(settings.fraction * len(scored) + 0.5))
    else:
        count = len(within)
    return [row[0] for row in ranked[:count]]
