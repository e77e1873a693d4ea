"""Numbers as a person reads them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(size: int) -> str:
    """Return bytes with three digits and a unit: `3.21 GiB`."""
    value, unit = float(size), 0
    while value >= 1000 and unit + 1 < len(_UNITS):
        value, unit = value / 1024, unit + 1
    if unit == 0:
        return "1 byte" if size == 1 else f"{size} bytes"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {_UNITS[unit]}"


def counted(count: int, noun: str, many: str = "") -> str:
    """Return a number with its noun: `1 file`, `3 files`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def reasons_text(reasons: Mapping[str, int]) -> str:
    """Return counts by name, the largest first: `truncated-image 12, no-image 3`."""
    ordered = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered)


def printable(name: str) -> str:
    r"""Return a file's name with escapes for what cannot be printed: `\xff`, `\n`.

    Names on a file system need not be UTF-8; the bytes that are not stand as halves of characters.
    """
    told = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in told
    )


def time_text(seconds: float) -> str:
    """Return a time of the storage's clock as `2026-11-22T08:30:00Z`; empty if it is not known."""
    if not math.isfinite(seconds) or seconds <= 0:
        return ""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def age_text(seconds: float) -> str:
    """Return a length of time in its largest unit: `9 days`, `3 hours`."""
    for length, noun in ((86_400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= 2 * length:
            return counted(int(seconds / length), noun)
    return counted(max(0, int(seconds)), "second")
