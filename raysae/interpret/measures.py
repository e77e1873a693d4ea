"""The numbers that a report draws: SAE health, score distributions, AUC against known corruption.

Each is small, whatever the corpus; `raysae.interpret.statistics` makes them out of arrays. A number
that is unknown is NaN, and the report shows a dash.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModalityHealth:
    """How well the SAE describes the tokens of one modality, on tokens it is judged by.

    Attributes:
        modality: `all`, `text`, `image` or `special`; shown in this order as given.
        tokens: Number of tokens measured.
        l0: Mean number of active features per token.
        fvu: Fraction of variance unexplained, 0 (perfect) to 1 (no better than the mean), or more.
        alive_share: Share [0, 1] of features that fired on at least one token.
        dead_share: Share [0, 1] that never fired (1 − alive, unless measured over a longer window).
        dense_share: Share [0, 1] that fired on more than `SaeSummary.dense_rate` of the tokens.
    """

    modality: str
    tokens: int
    l0: float
    fvu: float
    alive_share: float
    dead_share: float
    dense_share: float


@dataclass(frozen=True)
class TrainingPoint:
    """One logged point of SAE training; a metric that was not logged is NaN and leaves a gap.

    Attributes:
        step: Optimiser step.
        loss: The training loss, sparsity term included.
        fvu: Fraction of variance unexplained on the step's tokens.
        l0: Mean number of active features per token.
    """

    step: int
    loss: float
    fvu: float
    l0: float


@dataclass(frozen=True)
class SaeSummary:
    """The SAE that the scores rest on.

    Attributes:
        architecture: `relu`, `topk`, …
        d_in: Width of the hidden state.
        d_sae: Number of features.
        model: The vision-language model, by the name that the user gave.
        corpus: What it was trained on: name, and place or `the same rows`.
        layer: Block whose output (`resid_post`) the SAE reads.
        health: One entry per modality.
        curve: Logged training points in step order; more than 400 are thinned when drawn.
        dense_rate: Firing rate above which a feature is called dense.
    """

    architecture: str
    d_in: int
    d_sae: int
    model: str
    corpus: str
    layer: int
    health: tuple[ModalityHealth, ...]
    curve: tuple[TrainingPoint, ...]
    dense_rate: float = 0.1


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width, split by whether the row was kept.

    Attributes:
        edges: Bin edges, ascending, one more than there are bins.
        kept: Rows kept, per bin.
        dropped: Rows not kept, per bin.
    """

    edges: tuple[float, ...]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True)
class ScorerSummary:
    """How one scorer's values are spread. Made by `summarize_scores`.

    Attributes:
        scorer: Its name, e.g. `cosine-cooccurring`.
        rows: Rows with a finite score.
        missing: Rows without one.
        minimum: Smallest score.
        median: Middle score.
        mean: Mean score.
        maximum: Largest score.
        histogram: Of the finite scores.
        text_token_correlation: Spearman's rank correlation of score and text tokens; NaN if either
            is constant.
        image_token_correlation: The same with image tokens.
    """

    scorer: str
    rows: int
    missing: int
    minimum: float
    median: float
    mean: float
    maximum: float
    histogram: Histogram
    text_token_correlation: float
    image_token_correlation: float


@dataclass(frozen=True)
class WeightSummary:
    """How the cross-modal weights ω of all features are spread. Made by `summarize_weights`.

    Attributes:
        features: d_sae.
        weighted: Features that have a weight, i.e. were seen in both modalities.
        mean: Mean of those weights.
        histogram: Of those weights, all in `kept`, `dropped` all 0.
    """

    features: int
    weighted: int
    mean: float
    histogram: Histogram


@dataclass(frozen=True)
class AucRow:
    """How well one scorer tells rows of one kind of corruption from intact rows.

    Made by `auc_by_kind`, which says how the interval is computed.

    Attributes:
        scorer: Its name.
        kind: The kind of corruption; `any` for all kinds together.
        corrupted: Rows of this kind that have a score.
        intact: Intact rows that have a score.
        auc: Probability that an intact row scores above a corrupted one, ties counting half.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    scorer: str
    kind: str
    corrupted: int
    intact: int
    auc: float
    low: float
    high: float

    @property
    def cannot_tell(self) -> bool:
        """Whether the interval includes 0.5, so that the scorer may as well be a coin."""
        return not (self.low > 0.5 or self.high < 0.5)


@dataclass(frozen=True)
class KindCount:
    """How many rows of one kind there were and how many the selection kept.

    Attributes:
        kind: The kind of corruption; `intact` for the rows left alone.
        rows: Rows of the kind that were scored.
        kept: Those in the subset.
    """

    kind: str
    rows: int
    kept: int


@dataclass(frozen=True)
class Truth:
    """What is known of the rows because the corpus was corrupted on purpose.

    Attributes:
        aucs: One row per scorer and kind.
        counts: One row per kind, `intact` first.
    """

    aucs: tuple[AucRow, ...]
    counts: tuple[KindCount, ...]
