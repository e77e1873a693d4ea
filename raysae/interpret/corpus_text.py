"""An inspection as lines of text, for a terminal or a job's log."""

from __future__ import annotations

from collections.abc import Iterator

from raysae.interpret.formats import count, measure, percent, significant
from raysae.interpret.inspection import Inspection, Spread

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 32
_TEXT = 200
_ROWS_OF_A_REASON = 2


def corpus_lines(found: Inspection) -> Iterator[str]:
    """Yield the lines that tell what an inspection found."""
    yield from _head(found)
    yield "columns"
    width = max(len(column.name) for column in found.columns)
    for column in found.columns:
        holds = f"  ({column.holds})" if column.holds else ""
        yield f"  {column.name:{width}}  {column.type}{holds}"
    if found.spreads:
        yield "lengths and sizes of usable rows (minimum, 5 %, median, 95 %, maximum)"
        width = max(len(one.name) for one in found.spreads)
        for one in found.spreads:
            numbers = "  ".join(f"{measure(value):>9}" for value in one.quantiles)
            yield f"  {one.name:{width}}  {numbers}  {_bars(one)}".rstrip()
    if found.formats:
        images = ", ".join(f"{count(n)} {name}" for name, n in found.formats)
        yield f"images: {images}"
    yield from _rejected(found)
    yield from _examples(found)


def _head(found: Inspection) -> Iterator[str]:
    yield f"{found.corpus} in {found.place}"
    left_out = f" (beside {_counted(found.left_out, 'other')})" if found.left_out else ""
    yield (
        f"{_counted(found.rows, 'row')} in {_counted(found.files, 'file')}{left_out}, "
        f"{significant(found.bytes / 2**20)} MiB; of {count(found.looked_at)} looked at "
        f"{percent(found.usable_share)} can be used"
    )
    for part in found.parts:
        mark = "*" if part.inspected else " "
        yield f"{mark} {part.name}: {count(part.rows)} rows as published; {part.use}"


def _bars(one: Spread) -> str:
    """Return a histogram in one line; nothing for a single value."""
    if one.is_constant:
        return ""
    counts = one.histogram.kept
    merged = [0] * min(_WIDTH, len(counts))
    for index, n in enumerate(counts):
        merged[index * len(merged) // len(counts)] += n
    most = max(merged, default=0)
    # An empty bin is blank, so that one row is not taken for none.
    return "".join(_BARS[(n * len(_BARS) - 1) // most] if n else " " for n in merged)


def _rejected(found: Inspection) -> Iterator[str]:
    if not found.rejections:
        yield "no row would be rejected"
        return
    yield (
        f"{_counted(found.rejected, 'row')} would be rejected; a job stops where they are more "
        "than run.max_rejected_fraction"
    )
    for group in found.rejections:
        share = percent(group.rows / found.looked_at)
        yield f"  {group.reason}: {_counted(group.rows, 'row')}, {share}"
        for row in group.examples[:_ROWS_OF_A_REASON]:
            yield f"    row {count(row.ordinal)}: {_short(row.detail)}"


def _examples(found: Inspection) -> Iterator[str]:
    for example in found.examples:
        yield f"row {count(example.ordinal)}, id {example.sample_id}"
        yield f"  question: {_short(example.question)}"
        if example.chosen:
            yield f"  chosen:   {_short(example.chosen)}"
        if example.rejected:
            yield f"  rejected: {_short(example.rejected)}"


def _counted(n: int, what: str) -> str:
    return f"{count(n)} {what}{'' if n == 1 else 's'}"


def _short(text: str) -> str:
    # Control characters of a corpus are not for the terminal.
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _TEXT else f"{line[: _TEXT - 1]}…"
