"""How numbers and texts read in a report: sensible digits, thousands, units, a dash for unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass

UNKNOWN = "–"
NO_BREAK = "\N{NO-BREAK SPACE}"
_SMALLEST_POWER = -4
_MINUTE, _HOUR = 60, 3600
_COMPACT_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_VISIBLE = {"\r": "", "\n": "⏎", "\t": "⇥"}


def count(value: float) -> str:
    """Return a whole number with thousands separated: `39,216`."""
    return f"{value:,.0f}" if math.isfinite(value) else UNKNOWN


def compact(value: float) -> str:
    """Return a number short enough for an axis: `30k`, `1.5M`, `0.25`."""
    if not math.isfinite(value):
        return UNKNOWN
    for unit, suffix in _COMPACT_UNITS:
        if abs(value) >= unit:
            return f"{value / unit:.4g}{suffix}"
    return f"{value:.4g}".replace("-", "−")


def significant(value: float, digits: int = 3) -> str:
    """Return a number to so many significant digits: `27.6`, `0.178`, `1.3e−5`."""
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if power < _SMALLEST_POWER:
        return f"{value / 10.0**power:.1f}e{power}".replace("-", "−")
    return f"{value:,.{max(digits - 1 - power, 0)}f}".replace("-", "−")


def measure(value: float) -> str:
    """Return a whole number as it is, with thousands separated, any other to three digits."""
    return count(value) if value.is_integer() else significant(value)


def fixed(value: float, decimals: int = 3) -> str:
    """Return a number with so many decimals, so that a column of them lines up."""
    return f"{value:,.{decimals}f}".replace("-", "−") if math.isfinite(value) else UNKNOWN


def percent(share: float, decimals: int = 1) -> str:
    """Return a share [0, 1] as `49.2 %`; a share that only rounds to 0 or 100 % says so."""
    if not math.isfinite(share):
        return UNKNOWN
    least = 10.0**-decimals
    if 0 < share * 100 < least:
        return f"<{NO_BREAK}{least:g}{NO_BREAK}%"
    if 100 - least < share * 100 < 100:
        return f">{NO_BREAK}{100 - least:g}{NO_BREAK}%"
    return f"{share * 100:.{decimals}f}{NO_BREAK}%"


def duration(seconds: float) -> str:
    """Return a time as `0.4 s`, `43 s`, `12 min 5 s` or `3 h 20 min`."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f}{NO_BREAK}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}{NO_BREAK}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}{NO_BREAK}min{NO_BREAK}{whole % _MINUTE}{NO_BREAK}s"
    minutes = round(seconds / _MINUTE)
    return f"{minutes // _MINUTE:,}{NO_BREAK}h{NO_BREAK}{minutes % _MINUTE}{NO_BREAK}min"


def interval(low: float, high: float, decimals: int = 2) -> str:
    """Return an interval as `0.79 – 0.87`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return UNKNOWN
    return f"{fixed(low, decimals)}{NO_BREAK}–{NO_BREAK}{fixed(high, decimals)}"


def visible(token: str) -> str:
    """Return a token with its line breaks and tabs as signs, so that one can see them."""
    for sign, shown in _VISIBLE.items():
        token = token.replace(sign, shown)
    return token


def split_token(token: str) -> tuple[str, str]:
    """Split a token into its leading blanks and what to mark; blanks alone become `␣`."""
    word = token.lstrip(" ")
    if not word:
        return "", "␣" * len(token)
    return token[: len(token) - len(word)], visible(word)


@dataclass(frozen=True)
class LongText:
    """A text cut for reading.

    Attributes:
        head: What is always shown.
        tail: What is shown on demand; empty for a short text.
        cut: Characters left out of the report.
    """

    head: str
    tail: str
    cut: int


def long_text(text: str, head: int = 280, limit: int = 3000) -> LongText:
    """Cut a text at a blank near `head` characters, and for good at `limit`."""
    text = text.strip()
    if len(text) <= head + head // 4:
        return LongText(text, "", 0)
    blank = text.rfind(" ", head // 2, head)
    split = blank if blank > 0 else head
    return LongText(text[:split], text[split:limit], max(len(text) - limit, 0))
