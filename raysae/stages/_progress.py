"""Progress of a stage over its shards, a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

LOG_INTERVAL_S = 5.0
"""Seconds between two progress lines."""


def sum_counts(
    stage: str, shards: int, counts: Iterator[dict[str, float]], heard: Callable[[], None]
) -> dict[str, float]:
    """Add up what the shards report, with a progress line now and then.

    Args:
        stage: Its name, for the lines.
        shards: How many there are.
        counts: Of one shard after another.
        heard: Called for each.
    """
    total: dict[str, float] = {}
    started = logged = time.monotonic()
    for done, count in enumerate(counts, start=1):
        heard()
        for name, value in count.items():
            total[name] = total.get(name, 0) + value
        now = time.monotonic()
        if now - logged > LOG_INTERVAL_S or done == shards:
            logged = now
            line = progress_line(total, now - started)
            # With the start of the actors: without, those that end their first shards together
            # would promise far too much.
            pace = (now - started) / done
            left = f", {duration(pace * (shards - done))} left" if done < shards else ""
            sys.stdout.write(f"{stage}: {done}/{shards} shards, {line}{left}\n")
            sys.stdout.flush()
    return total


def progress_line(total: dict[str, float], seconds: float) -> str:
    """Return what a stage has done so far, in words.

    Args:
        total: Summed counts: `rows`, `rejected`, `tokens`, and `bytes` where files are written.
        seconds: In which it was done.
    """
    seconds = max(seconds, 1e-9)
    written = f", {total['bytes'] / seconds / 1e9:.3f} GB/s" if "bytes" in total else ""
    return (
        f"{total.get('rows', 0):,.0f} rows, {total.get('rejected', 0):,.0f} rejected, "
        f"{total.get('tokens', 0):,.0f} tokens, {total.get('tokens', 0) / seconds:,.0f} tokens/s"
        f"{written}"
    )


def duration(seconds: float) -> str:
    """Return a span of time in the two largest units: `2 d 3 h`, `1 h 5 min`, `3 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((at for at, (number, _) in enumerate(units) if number), len(units) - 1)
    return " ".join(f"{number} {unit}" for number, unit in units[first : first + 2])
