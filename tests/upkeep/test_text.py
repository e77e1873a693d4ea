from __future__ import annotations

import math

import pytest

from raysae.upkeep.text import age_text, counted, printable, reasons_text, size_text, time_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (10_230, "9.99 KiB"),
        (10_240, "10.0 KiB"),
        (102_400, "100 KiB"),
        (1_023_999, "1000 KiB"),
        (1_024_000, "0.98 MiB"),
        (3 << 40, "3.00 TiB"),
        (5000 << 50, "5000 PiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_counts() -> None:
    assert counted(1, "file") == "1 file"
    assert counted(1234, "file") == "1,234 files"
    assert counted(2, "temporary", "temporaries") == "2 temporaries"
    assert reasons_text({"b": 1, "a": 1, "c": 1200}) == "c 1,200, a 1, b 1"


def test_times() -> None:
    assert time_text(0) == time_text(math.nan) == ""
    assert time_text(1_700_000_000) == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 seconds"), (1, "1 second"), (150, "2 minutes"), (9000, "2 hours"), (9e5, "10 days")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


def test_what_of_a_name_cannot_be_printed_is_escaped() -> None:
    assert printable("saes/ü b") == "saes/ü b"
    assert printable(b"a\xff\xc3\xbc".decode(errors="surrogateescape")) == r"a\xffü"
    assert printable("two\nlines\x1b") == r"two\nlines\x1b"
