"""The samples and features that the report shows one by one, gathered from corpus and artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raysae.corpora import Corpus
from raysae.interpret import (
    DecidingFeature,
    FeatureCard,
    PatchExample,
    SampleCard,
    TokenExample,
)
from raysae.models import HiddenStateModel, PreparedSample
from raysae.sample import Modality, Sample

CONTEXT_TOKENS = 12
"""Text tokens shown on either side of a feature's top token."""


class SampleSource:
    """Looks up single samples of a corpus, and how the model sees them.

    Args:
        corpus: Where the samples are.
        model: A model that prepares them; its weights are not used.
    """

    def __init__(self, corpus: Corpus, model: HiddenStateModel) -> None:
        self.corpus = corpus
        self.model = model
        self._seen: dict[int, tuple[Sample, PreparedSample]] = {}

    def sample(self, ordinal: int) -> Sample:
        """Return the sample at an ordinal that was scored."""
        return self._look_up(ordinal)[0]

    def prepared(self, ordinal: int) -> PreparedSample:
        """Return its tokens."""
        return self._look_up(ordinal)[1]

    def _look_up(self, ordinal: int) -> tuple[Sample, PreparedSample]:
        if ordinal not in self._seen:
            file_index, row = self.corpus.snapshot.locate(ordinal)
            table = self.corpus.read(file_index, row, row + 1, self.corpus.columns)
            (sample,) = self.corpus.samples(table, ordinal)
            assert isinstance(sample, Sample)
            self._seen[ordinal] = (sample, self.model.outline(sample))
        return self._seen[ordinal]


def sample_cards(
    rows: pa.Table,
    source: SampleSource,
    kept: set[int],
    other_scores: Mapping[str, Mapping[int, float]],
    kinds: Mapping[int, str],
) -> tuple[SampleCard, ...]:
    """Return the cards of some rows of the score table.

    Args:
        rows: In `SCORE_SCHEMA`, in the order to be shown.
        source: Where the samples are.
        kept: Ordinals in the subset.
        other_scores: Scorer → ordinal → score.
        kinds: Ordinal → how the row was corrupted, where that is known.
    """
    cards = []
    for row in rows.to_pylist():
        sample = source.sample(row["ordinal"])
        cards.append(
            SampleCard(
                sample_id=sample.sample_id,
                ordinal=sample.ordinal,
                image=sample.images[0] if sample.images else None,
                question=" ".join(message.text for message in sample.messages),
                chosen=sample.chosen or "",
                rejected=sample.rejected or "",
                score=row["score"],
                kept=row["ordinal"] in kept,
                text_tokens=row["text_tokens"],
                image_tokens=row["image_tokens"],
                features=tuple(
                    DecidingFeature(feature, contribution)
                    for feature, contribution in zip(
                        row["features"], row["contributions"], strict=True
                    )
                ),
                other_scores={
                    name: scores[row["ordinal"]]
                    for name, scores in other_scores.items()
                    if row["ordinal"] in scores
                },
                truth=kinds.get(row["ordinal"], ""),
            )
        )
    return tuple(cards)


def feature_cards(
    strongest: Sequence[Mapping[str, Any]], source: SampleSource
) -> tuple[FeatureCard, ...]:
    """Return the cards of the features that the weights stage listed as strongest.

    Args:
        strongest: `feature`, `weight`, `n_text`, `n_image`, `fired_text`, `fired_image`, and the
            top `text` and `image` tokens as (ordinal, position, token id, value).
        source: Where the samples are.
    """
    return tuple(_feature_card(feature, source) for feature in strongest)


def _feature_card(feature: Mapping[str, Any], source: SampleSource) -> FeatureCard:
    patches = _patches(feature["image"], source)
    return FeatureCard(
        feature=feature["feature"],
        weight=feature["weight"],
        n_text=feature["n_text"],
        n_image=feature["n_image"],
        text_firings=feature["fired_text"],
        image_firings=feature["fired_image"],
        patches=patches,
        tokens=tuple(
            _token(ordinal, position, value, source)
            for ordinal, position, _, value in feature["text"]
        ),
        row_ends=len(feature["image"]) - len(patches),
    )


def _patches(
    tokens: Sequence[tuple[int, int, int, float]], source: SampleSource
) -> tuple[PatchExample, ...]:
    """Return the image tokens that stand for a part of an image (newline tokens stand for none)."""
    examples = []
    for ordinal, position, _, value in tokens:
        sample = source.sample(ordinal)
        boxes = source.model.image_boxes(sample, source.prepared(ordinal))
        for box in boxes:
            if box.position == position:
                edges = (box.left, box.top, box.right, box.bottom)
                image = sample.images[box.image]
                examples.append(PatchExample(image, edges, value, sample.sample_id, position))
    return tuple(examples)


def _token(ordinal: int, position: int, value: float, source: SampleSource) -> TokenExample:
    """Return a text token with the text around it, image placeholders left out."""
    prepared = source.prepared(ordinal)
    text = np.flatnonzero(prepared.modality_n != Modality.IMAGE)
    place = int(np.searchsorted(text, position))
    before = text[max(0, place - CONTEXT_TOKENS) : place]
    after = text[place + 1 : place + 1 + CONTEXT_TOKENS]
    decode, ids = source.model.decode_tokens, prepared.token_id_n
    # Blanks between tokens show only where neighbours are decoded together: with and without it.
    left, up_to = decode(ids[before]), decode(ids[[*before, position]])
    whole = decode(ids[[*before, position, *after]])
    return TokenExample(
        before=left,
        token=up_to[len(left) :] if up_to.startswith(left) else decode(ids[[position]]),
        after=whole[len(up_to) :] if whole.startswith(up_to) else decode(ids[after]),
        value=value,
        sample_id=prepared.sample_id,
        position=position,
    )
