from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.interpret import formats


def spaced(text: str) -> str:
    return text.replace(formats.NO_BREAK, " ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (27.63, "27.6"),
        (0.17849, "0.178"),
        (1234567, "1,234,567"),
        (0, "0"),
        (-0.5, "−0.500"),
        (1.32e-5, "1.3e−5"),
        (9.996, "10.00"),
        (math.nan, "–"),
        (math.inf, "–"),
    ],
)
def test_significant(value, text):
    assert formats.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(30000, "30k"), (1.5e6, "1.5M"), (0.25, "0.25"), (-2, "−2"), (0, "0")]
)
def test_compact(value, text):
    assert formats.compact(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.492, "49.2 %"),
        (0, "0.0 %"),
        (1, "100.0 %"),
        (1e-5, "< 0.1 %"),
        (0.99999, "> 99.9 %"),
        (math.nan, "–"),
    ],
)
def test_percent_never_rounds_some_to_none_or_all(share, text):
    assert spaced(formats.percent(share)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.43, "0.4 s"),
        (43, "43 s"),
        (59.7, "1 min 0 s"),
        (725, "12 min 5 s"),
        (12000, "3 h 20 min"),
        (math.nan, "–"),
    ],
)
def test_duration(seconds, text):
    assert spaced(formats.duration(seconds)) == text


def test_interval_and_counts():
    assert spaced(formats.interval(0.791, 0.868)) == "0.79 – 0.87"
    assert formats.interval(math.nan, 1) == "–"
    assert formats.count(39216) == "39,216"
    assert formats.fixed(-0.0712, 2) == "−0.07"


@pytest.mark.parametrize(
    ("token", "parts"),
    [(" buoy", (" ", "buoy")), ("\n\n", ("", "⏎⏎")), ("  ", ("", "␣␣")), ("", ("", ""))],
)
def test_tokens_show_what_is_blank_in_them(token, parts):
    assert formats.split_token(token) == parts


@settings(deadline=None)
@given(text=st.text(max_size=600), head=st.integers(1, 100), limit=st.integers(200, 400))
def test_long_text_loses_no_character_unsaid(text, head, limit):
    cut = formats.long_text(text, head, limit)
    shown = cut.head + cut.tail
    assert text.strip().startswith(shown)
    assert len(shown) + cut.cut == len(text.strip())


def test_long_text_is_cut_at_a_blank():
    cut = formats.long_text("word " * 200, head=52, limit=500)
    assert cut.head == ("word " * 10).strip()
