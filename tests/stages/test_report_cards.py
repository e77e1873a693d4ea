"""What the report shows of single tokens."""

from __future__ import annotations

import numpy as np
import pytest

from raysae.corpora import CorpusSettings, open_corpus
from raysae.models import ModelSettings, load_hidden_state_model
from raysae.sample import Modality
from raysae.stages import _report_cards as cards


@pytest.fixture(scope="module")
def source() -> cards.SampleSource:
    corpus = open_corpus(CorpusSettings("builtin", max_rows=3))
    return cards.SampleSource(corpus, load_hidden_state_model(ModelSettings(), "meta"))


@pytest.mark.parametrize("ordinal", range(3))
def test_a_token_and_its_context_are_the_text(source: cards.SampleSource, ordinal: int) -> None:
    prepared = source.prepared(ordinal)
    text = np.flatnonzero(prepared.modality_n != Modality.IMAGE)
    assert len(text) <= cards.CONTEXT_TOKENS * 2
    whole = source.model.decode_tokens(prepared.token_id_n[text])
    assert " " in whole.split("USER:")[1].strip()
    middle = text[len(text) // 2 - 3 : cards.CONTEXT_TOKENS]
    for position in middle.tolist():
        shown = cards._token(ordinal, position, 1.0, source)
        assert shown.before + shown.token + shown.after == whole
        assert shown.token
