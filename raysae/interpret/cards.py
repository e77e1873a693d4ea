"""The samples and features that a report shows one by one.

Texts, ids and image bytes may hold anything: the renderer escapes texts and re-encodes images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) of an image patch, as fractions [0, 1] of the original image."""


@dataclass(frozen=True)
class DecidingFeature:
    """A feature that a sample's score is made of.

    Attributes:
        feature: Its number in the SAE; links to its card where the report has one.
        contribution: What it adds to the score: its ω, divided by the number of features where the
            score is a mean.
    """

    feature: int
    contribution: float


@dataclass(frozen=True)
class SampleCard:
    """One sample, shown in full.

    Attributes:
        sample_id: The source's id.
        ordinal: Row number in the corpus snapshot.
        image: Encoded bytes of its first image; None if it has none.
        question: The question; any length, shortened when drawn.
        chosen: The preferred answer; empty if the source has none.
        rejected: The other answer.
        score: By the scorer that decided.
        kept: Whether it is in the subset.
        text_tokens: Its text tokens.
        image_tokens: Its image tokens.
        features: Deciding features, strongest first.
        other_scores: Scores by other scorers, by name.
        truth: How the row was corrupted, where that is known; empty for an intact or unknown row.
    """

    sample_id: str
    ordinal: int
    image: bytes | None
    question: str
    chosen: str
    rejected: str
    score: float
    kept: bool
    text_tokens: int
    image_tokens: int
    features: tuple[DecidingFeature, ...]
    other_scores: Mapping[str, float] = field(default_factory=dict)
    truth: str = ""


@dataclass(frozen=True)
class PatchExample:
    """An image token that a feature fires on.

    Attributes:
        image: Encoded bytes of the whole image.
        box: Where the token's patch lies in it.
        value: The feature's activation there.
        sample_id: Whose image it is.
        position: The token's position in the sample.
    """

    image: bytes
    box: Box
    value: float
    sample_id: str
    position: int


@dataclass(frozen=True)
class TokenExample:
    """A text token that a feature fires on, in its context.

    Attributes:
        before: Decoded text before it (a dozen tokens).
        token: The decoded token itself, blanks included.
        after: Decoded text after it.
        value: The feature's activation there.
        sample_id: Whose text it is.
        position: The token's position in the sample.
    """

    before: str
    token: str
    after: str
    value: float
    sample_id: str
    position: int


@dataclass(frozen=True)
class FeatureCard:
    """One feature, shown by what it fires on.

    Attributes:
        feature: Its number in the SAE.
        weight: Its cross-modal weight ω (mean cosine of its top text and image hidden states).
        n_text: Text tokens that the weight was computed from (at most K).
        n_image: Image tokens that the weight was computed from (at most K).
        text_firings: Text tokens it fired on, in the tokens that its weight was looked for.
        image_firings: Image tokens likewise.
        patches: Its strongest image tokens that are a part of an image, strongest first.
        tokens: Its strongest text tokens, strongest first.
        row_ends: How many of its strongest image tokens are no part of an image: the model's own
            marks at the end of a row of patches.
    """

    feature: int
    weight: float
    n_text: int
    n_image: int
    text_firings: int
    image_firings: int
    patches: tuple[PatchExample, ...]
    tokens: tuple[TokenExample, ...]
    row_ends: int = 0
