"""What decides feature weights, sample scores and the subset. All of it is content: it is hashed.

Every default names its source. "Released code" is the code that came with SAE-V (Lou et al., ICML
2025); where it and the paper differ, both readings can be set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raysae.errors import SettingsError

Candidates = Literal["per-modality", "joint-top-30"]
Pairing = Literal["all", "ith"]

JOINT_CANDIDATES = 30
"""How many tokens of any modality the released code considers for a feature."""


@dataclass(frozen=True)
class WeightSettings:
    """How feature weights are measured (SAE-V, Algorithm 1 and Eq. 7).

    Attributes:
        n_samples: Samples drawn from the corpus; 0 takes all of them. Released code: 1,000.
        seed: Decides which samples are drawn.
        top_k: K, tokens of each modality that stand for a feature. Released code: 5.
        min_tokens: A feature with fewer retained text or image tokens has weight 0. 1 is the
            paper's definition, which lacks a minimum; the released code demands all K.
        candidates: `per-modality` takes each modality's K highest tokens (paper); `joint-top-30`
            takes the first K of each among the feature's 30 highest tokens (released code).
        pairing: `all` averages the cosines of all text × image pairs (released code, main path);
            `ith` pairs the i-th highest text token with the i-th highest image token.
        threshold: δ, a token counts for a feature where its activation exceeds this.
        features_per_token: Each token offers only its highest features, ties by feature index;
            0 offers all. Released code: 50.
        bos_is_text: Whether the special token at position 0 counts as text. Off by default: under
            causal attention it sees no other token, so its hidden state is the same in every sample
            and says nothing of any. The released code counts it.
    """

    n_samples: int = 1000
    seed: int = 42
    top_k: int = 5
    min_tokens: int = 1
    candidates: Candidates = "per-modality"
    pairing: Pairing = "all"
    threshold: float = 0.0
    features_per_token: int = 0
    bos_is_text: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, naming the field."""
        _at_least("weights.n_samples", self.n_samples, 0)
        _at_least("weights.seed", self.seed, 0)
        _at_least("weights.top_k", self.top_k, 1)
        _at_least("weights.min_tokens", self.min_tokens, 1)
        _at_least("weights.threshold", self.threshold, 0)
        _at_least("weights.features_per_token", self.features_per_token, 0)
        _one_of("weights.candidates", self.candidates, ("per-modality", "joint-top-30"))
        _one_of("weights.pairing", self.pairing, ("all", "ith"))
        if self.min_tokens > self.top_k:
            raise SettingsError(
                f"weights.min_tokens: must not exceed weights.top_k ({self.top_k}), got "
                f"{self.min_tokens}."
            )
        if self.candidates == "joint-top-30" and self.top_k > JOINT_CANDIDATES:
            raise SettingsError(
                f"weights.top_k: must be at most {JOINT_CANDIDATES} with weights.candidates "
                f"'joint-top-30', got {self.top_k}."
            )


@dataclass(frozen=True)
class ScoreSettings:
    """How samples are scored (SAE-V, Algorithms 1 to 3).

    Attributes:
        threshold: δ, a feature is active on a token where its activation exceeds this. Released
            code: 1.0. It applies to the cosine scores and to `l0-cooccurring`; `l0` counts
            activations above 0.
        bos_is_text: As in `WeightSettings`. Off by default: every feature of this token would count
            as active on the text of every sample, so that any image token shares them.
        drop_first_token: Leave position 0 out of `l0`, as the released code does: whatever token
            stands there is an attention sink with far more active features than the others.
        l0_reduction: `mean` over tokens (released code) or `sum` (paper).
        deciding: How many features to keep per sample and score as its explanation.
        seed: Decides the `random` score.
    """

    threshold: float = 1.0
    bos_is_text: bool = False
    drop_first_token: bool = True
    l0_reduction: Literal["mean", "sum"] = "mean"
    deciding: int = 8
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, naming the field."""
        _at_least("score.threshold", self.threshold, 0)
        _at_least("score.deciding", self.deciding, 0)
        _at_least("score.seed", self.seed, 0)
        _one_of("score.l0_reduction", self.l0_reduction, ("mean", "sum"))


@dataclass(frozen=True)
class SelectionSettings:
    """Which samples are kept.

    Without `n`, `min_score` and `max_score` the best `fraction` is kept. Any of the three replaces
    it: `n` keeps the best n, the limits keep what lies within them (both ends included; together
    they are a band), and `n` with limits keeps the best n within them.

    Attributes:
        scorer: The score that decides, by name.
        fraction: Share of the scored samples, rounded to the nearest whole sample, at least one.
        order: `highest` keeps high scores, `lowest` low ones.
        n: How many samples to keep.
        min_score: Lowest score kept.
        max_score: Highest score kept.
    """

    scorer: str = "cosine-cooccurring"
    fraction: float = 0.5
    order: Literal["highest", "lowest"] = "highest"
    n: int | None = None
    min_score: float | None = None
    max_score: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, naming the field."""
        _one_of("select.order", self.order, ("highest", "lowest"))
        if not 0 < self.fraction <= 1:
            raise SettingsError(f"select.fraction: must lie in (0, 1], got {self.fraction}.")
        if self.n is not None:
            _at_least("select.n", self.n, 1)
        if (
            self.min_score is not None
            and self.max_score is not None
            and not self.min_score <= self.max_score
        ):
            raise SettingsError(
                f"select.min_score: must not exceed select.max_score ({self.max_score}), got "
                f"{self.min_score}."
            )


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise SettingsError(f"{name}: must be at least {least}, got {value}.")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"{name}: must be one of {', '.join(choices)}, got {value!r}.")
