"""Which of a corpus' files are meant: patterns of their names below the corpus' place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase, translate
from functools import cache
from itertools import compress
from typing import NamedTuple

from raysae.corpora.listing import Listing
from raysae.errors import DataError


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a path matches a pattern.

    They are compared directory by directory, and `*` never reaches over a slash. Each directory is
    looked at once, however many files it holds.
    """
    *wanted, last = pattern.split("/")
    is_last = re.compile(translate(last)).match

    @cache
    def is_directory(path: str) -> bool:
        parts = path.split("/") if path else []
        return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))

    def matches(name: str) -> bool:
        directory, _, file = name.rpartition("/")
        return is_directory(directory) and is_last(file) is not None

    return matches


class Wanted(NamedTuple):
    """Which files of a listing are meant.

    Attributes:
        pattern: The user's; empty if there is none.
        usual: Patterns of the data set's own layout: the first that matches any file counts. If
            none does, all files are meant.
        setting: The field of a job's settings that holds the pattern, for messages.
        others: Patterns of files that are something else: where none is as usual, but some are
            these, there is nothing that is meant.
    """

    pattern: str = ""
    usual: tuple[str, ...] = ()
    setting: str = "corpus.files"
    others: tuple[str, ...] = ()

    def of(self, listing: Listing) -> Listing:
        """Return the part of a listing that is meant.

        Raises:
            DataError: No file matches the user's pattern, or all are something else.
        """
        names = [file.name for file in listing.files]
        for tried in [self.pattern] if self.pattern else self.usual:
            meant = list(map(matcher(tried), names))
            if any(meant):
                return replace(listing, files=list(compress(listing.files, meant)))
        strange = any(any(map(matcher(other), names)) for other in self.others)
        if not self.pattern and not strange:
            return listing
        wanted = repr(self.pattern) if self.pattern else " or ".join(map(repr, self.usual))
        some = ", ".join(file.name for file in listing.files[:5])
        raise DataError(
            f"{self.setting}: none of {len(listing.files)} files in {listing.root} matches "
            f"{wanted} (there are {some}); correct the pattern or the path."
        )
