"""Which of a corpus' files are meant: patterns of their names below the corpus' place."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from raysae.corpora.listing import Listing
from raysae.errors import DataError


def matches(name: str, pattern: str) -> bool:
    """Whether a path matches a pattern, directory by directory; `*` never reaches over a slash."""
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


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
        for tried in [self.pattern] if self.pattern else self.usual:
            found = [file for file in listing.files if matches(file.name, tried)]
            if found:
                return replace(listing, files=found)
        strange = any(matches(file.name, other) for other in self.others for file in listing.files)
        if not self.pattern and not strange:
            return listing
        wanted = repr(self.pattern) if self.pattern else " or ".join(map(repr, self.usual))
        some = ", ".join(file.name for file in listing.files[:5])
        raise DataError(
            f"{self.setting}: none of {len(listing.files)} files in {listing.root} matches "
            f"{wanted} (there are {some}); correct the pattern or the path."
        )
