from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.interpret.content import RejectionGroup
from raysae.interpret.corpus_page import render_corpus
from raysae.interpret.corpus_text import corpus_lines
from raysae.interpret.inspection import Column, Example, Inspection, Part, Spread, spread
from raysae.sample import Rejection
from tests.models.tiny import encode, picture


def lengths(*values: float) -> Spread:
    made = spread("question, characters", values)
    assert made is not None
    return made


FOUND = Inspection(
    corpus="mine",
    place="/data/<mine>",
    files=2,
    left_out=3,
    bytes=3 * 2**20,
    rows=40_000,
    looked_at=1_000,
    columns=(Column("prompt", "string", "question"), Column("other", "int64", "")),
    parts=(Part("a", 39_216, "by all scorers", True), Part("b", 9_501, "not read: video", False)),
    model="some-model",
    spreads=(lengths(*range(1, 101)),),
    formats=(("JPEG RGB", 980),),
    rejections=(
        RejectionGroup("no-image", 20, (Rejection("x-4", 4, "no-image", "the <image> is null"),)),
    ),
    examples=(Example("x-0", 0, (encode(picture(20, 10)),), "What <b>?", "A cat.", "A dog."),),
)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_a_spread_is_its_values(values: list[float]) -> None:
    made = lengths(*values)
    assert made.rows == len(values)
    assert made.quantiles[0] == min(values)
    assert made.quantiles[4] == max(values)
    assert list(made.quantiles) == sorted(made.quantiles)
    shown = sum(value <= np.quantile(values, 0.99) for value in values)
    assert sum(made.histogram.kept) == shown
    assert not any(made.histogram.dropped)


def test_nothing_has_no_spread() -> None:
    assert spread("x", []) is None


def test_the_text_tells_everything() -> None:
    text = "\n".join(corpus_lines(FOUND))
    for told in (
        "mine in /data/<mine>",
        "40,000 rows in 2 files (beside 3 others), 3.00 MiB; of 1,000 looked at 98.0",
        "* a: 39,216 rows as published; by all scorers",
        "  b: 9,501 rows as published; not read: video",
        "prompt  string  (question)",
        "other   int64",
        "50.5",
        "images: 980 JPEG RGB",
        "20 rows would be rejected",
        "row 4: the <image> is null",
        "row 0, id x-0",
        "chosen:   A cat.",
    ):
        assert told in text


def test_numbers_read_as_what_they_are() -> None:
    counts, sizes = spread("rows", [20.0, 22.0, 24.0]), spread("KiB", [1.5, 2.25])
    assert counts is not None
    assert sizes is not None
    text = list(corpus_lines(replace(FOUND, spreads=(counts, sizes))))
    (line,) = (line for line in text if line.strip().startswith("rows"))
    assert line.split()[1:6] == ["20", "20.2", "22", "23.8", "24"]
    page = render_corpus(replace(FOUND, spreads=(counts, sizes)))
    assert "From 20 to 24, median 22, 95 % up to 23.8." in page
    assert "1 of 3 are beyond the right end." in page


def test_one_value_of_all_rows_is_no_chart() -> None:
    constant = spread("image width, pixels", [64.0] * 7)
    assert constant is not None
    page = render_corpus(replace(FOUND, spreads=(constant,)))
    assert "image width, pixels: 64" in page
    assert 'class="kept"' not in page
    (line,) = (one for one in corpus_lines(replace(FOUND, spreads=(constant,))) if "width" in one)
    assert line.endswith("64")


def test_a_corpus_without_bad_rows_says_so() -> None:
    assert "no row would be rejected" in list(corpus_lines(replace(FOUND, rejections=())))


def test_the_page_shows_and_escapes() -> None:
    page = render_corpus(FOUND)
    assert "What &lt;b&gt;?" in page
    assert "<b>?" not in page
    assert "data:image/jpeg;base64," in page
    assert 'class="kept"' in page
    for told in (
        "39,216",
        "no-image",
        "the &lt;image&gt; is null",
        "JPEG RGB",
        "prompt",
        "some-model",
    ):
        assert told in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("broken", [b"", b"no image", None])
def test_a_page_without_pictures(broken: bytes | None) -> None:
    images = () if broken is None else (broken,)
    example = replace(FOUND.examples[0], images=images)
    page = render_corpus(replace(FOUND, examples=(example,), spreads=(), parts=(), formats=()))
    assert ("no image" if broken is None else "image cannot be shown") in page
