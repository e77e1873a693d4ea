"""The file formats that corpora are read from, told apart by the files' names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from raysae.errors import DataError

FormatName = Literal["Parquet", "Arrow", "JSON lines"]

_FORMATS: dict[str, FormatName] = {
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".feather": "Arrow",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
}

SUFFIXES = tuple(_FORMATS)
"""How the names of corpus files end."""

OTHER_JSON = "Unpack compressed JSON lines; rename *.json to *.jsonl if each line is an object."
"""The way out for files that are nearly read."""

_DATASETS_CACHE = "cache-"
"""How the names of Arrow files begin that `datasets` leaves beside a data set that it saved: what
its `map` computed."""


def format_of(name: str) -> FormatName:
    """Return a file's format; one that is named without a known ending is taken for Parquet."""
    return _FORMATS.get(name[name.rfind(".") :], "Parquet")


def is_data_file(name: str) -> bool:
    """Whether a file of that name (without its directories) counts as a corpus' file."""
    if not name.endswith(SUFFIXES):
        return False
    return not (format_of(name) == "Arrow" and name.startswith(_DATASETS_CACHE))


def check_one_format(place: str, names: Iterable[str]) -> None:
    """Refuse files of several formats: they are rarely one corpus, often the same rows twice.

    Args:
        place: Where they are, for the message.
        names: All of them.

    Raises:
        DataError: There are two formats or more.
    """
    counts = Counter(format_of(name) for name in names)
    if len(counts) > 1:
        held = ", ".join(f"{n} of {kind}" for kind, n in sorted(counts.items()))
        raise DataError(
            f"{place} holds files of several formats ({held}); name the directory or the file that "
            "is meant, or a pattern with --corpus.files."
        )
