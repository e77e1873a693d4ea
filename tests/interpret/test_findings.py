from __future__ import annotations

import dataclasses
import math

import pytest

from raysae.interpret.findings import UNKNOWN_TRUTH, findings, headline, verdict
from raysae.interpret.formats import NO_BREAK
from raysae.interpret.measures import AucRow, KindCount, Truth
from tests.interpret.demo import demo_content


@pytest.fixture(scope="module")
def content():
    return demo_content()


def told(content) -> str:
    return " ".join(findings(content)).replace(NO_BREAK, " ")


def with_auc(content, auc: float, low: float, high: float):
    row = AucRow("cosine-cooccurring", "any", 20, 30, auc, low, high)
    counts = (KindCount("intact", 30, 15), KindCount("swapped", 20, 5))
    return dataclasses.replace(content, truth=Truth((row,), counts))


def test_headline_is_the_answer(content):
    assert headline(content) == "Kept 800 of 1,600 rows of builtin-noisy by cosine-cooccurring"


def test_selection_and_time_are_told(content):
    text = told(content)
    assert "1,584 rows have a score; 800 of them were kept, the highest by the rule" in text
    assert "784 dropped. 16 rows could not be used" in text
    assert "took 4 h 1 min" in text


def test_a_stage_of_unknown_time_is_named(content):
    stages = tuple(
        dataclasses.replace(stage, seconds=math.nan) if stage.stage == "score" else stage
        for stage in content.stages
    )
    text = told(dataclasses.replace(content, stages=stages))
    assert "of wall-clock time, score not counted." in text
    unknown = tuple(dataclasses.replace(stage, seconds=math.nan) for stage in content.stages)
    assert "wall-clock" not in told(dataclasses.replace(content, stages=unknown))


def test_the_rule_is_told(content):
    selection = dataclasses.replace(content.selection, rule="max_score 3.0")
    assert "the highest by the rule max_score 3.0" in told(
        dataclasses.replace(content, selection=selection)
    )


def test_unknown_truth_is_told(content):
    assert UNKNOWN_TRUTH in findings(dataclasses.replace(content, truth=None))


@pytest.mark.parametrize(
    ("numbers", "sentence", "word"),
    [
        ((0.8, 0.7, 0.9), "intact rows tend to score higher", "intact higher"),
        ((0.6, 0.4, 0.7), "cannot tell, since the interval includes 0.5", "cannot tell"),
        ((0.2, 0.1, 0.3), "corrupted rows tend to score higher", "corrupted higher"),
        ((math.nan, math.nan, math.nan), "has no AUC", "no rows"),
    ],
)
def test_auc_is_read_by_its_interval(content, numbers, sentence, word):
    changed = with_auc(content, *numbers)
    assert sentence in told(changed)
    assert verdict(changed.truth.aucs[0]) == word


def test_kinds_that_it_cannot_tell_are_named(content):
    assert "it cannot tell: swapped-answers, truncated-answer (" in told(content)


def test_shares_kept_are_told(content):
    assert "50.0 % of the intact rows and 25.0 % of the corrupted" in told(
        with_auc(content, 0.8, 0.7, 0.9)
    )


def test_selection_by_length_is_told(content):
    scorer = dataclasses.replace(content.scorers[0], image_token_correlation=0.71)
    changed = dataclasses.replace(content, scorers=(scorer,))
    assert "follows the number of image tokens (rank correlation 0.71)" in told(changed)
    assert "follows the number" not in told(content)


def test_a_poor_sae_is_told(content):
    health = dataclasses.replace(content.sae.health[2], fvu=0.62)
    changed = dataclasses.replace(content, sae=dataclasses.replace(content.sae, health=(health,)))
    assert "leaves 62 % of the variance of image tokens unexplained" in told(changed)
    assert "54 % of the SAE's features never fired" in told(content)


def test_an_sae_of_a_strangers_corpus_is_told(content):
    strange = dataclasses.replace(content.sae, corpus="builtin")
    assert "trained on builtin" not in told(dataclasses.replace(content, sae=strange))
    changed = dataclasses.replace(content, sae=strange, corpus="align-anything")
    assert "trained on builtin, small drawings, and not on a corpus like align-anything" in (
        told(changed)
    )
