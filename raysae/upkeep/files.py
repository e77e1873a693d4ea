"""What there is in an artifact's directory, by one listing: what it should have, and what is left.

Temporaries are files being written, or what a killed writer left of them; an attempt mark says that
a shard was begun; everything else that nothing lists is either being made or left behind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from raysae.artifacts import MARK_SUFFIX, METADATA_FILE, SPEC_FILE
from raysae.artifacts.attempts import ATTEMPTS
from raysae.storage import Directory, Entry, is_temporary, writer_is_dead

_CHECKPOINT = re.compile(r"(?:^|/)checkpoints/(step-\d+)")


@dataclass
class FileSurvey:
    """The files of a directory, by what they are.

    Attributes:
        files: All of them.
        bytes: Theirs.
        touched: When the newest of them was written, by the storage's clock; 0 if there is none,
            NaN if the storage does not tell.
        marks: Done marks.
        temporaries: Unfinished files.
        attempts: Attempt marks.
        unlisted: What no mark and no metadata lists.
        wrong: Bytes of listed files that have other sizes than listed, by name.
        missing: Listed files that are not there, with their sizes.
    """

    files: int = 0
    bytes: int = 0
    touched: float = 0.0
    marks: int = 0
    temporaries: list[Entry] = field(default_factory=list)
    attempts: list[Entry] = field(default_factory=list)
    unlisted: list[Entry] = field(default_factory=list)
    wrong: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)

    @property
    def checkpoints(self) -> list[str]:
        """Names of the checkpoints among the unlisted files, sorted."""
        found = (_CHECKPOINT.search(entry.key) for entry in self.unlisted)
        return sorted({one[1] for one in found if one})


def survey_files(directory: Directory, sizes: Mapping[str, int]) -> FileSurvey:
    """List a directory and compare it with what it should hold.

    Args:
        directory: The artifact's, or another one.
        sizes: Bytes of the files that something lists, by name.
    """
    survey = FileSurvey(missing=dict(sizes))
    for entry in directory.entries():
        survey.files += 1
        survey.bytes += entry.size
        survey.touched = _later(survey.touched, entry.modified)
        if temporary_part(entry.key):
            survey.temporaries.append(entry)
        elif entry.key.startswith(f"{ATTEMPTS}/"):
            survey.attempts.append(entry)
        elif entry.key.endswith(MARK_SUFFIX):
            survey.marks += 1
        elif entry.key in sizes:
            if survey.missing.pop(entry.key) != entry.size:
                survey.wrong[entry.key] = entry.size
        elif entry.key not in {SPEC_FILE, METADATA_FILE}:
            survey.unlisted.append(entry)
    return survey


def temporary_part(name: str) -> str:
    """Return the part of a name that makes a file temporary: its own, or a directory's; or ''."""
    return next((part for part in name.split("/") if is_temporary(part)), "")


def is_left_by_the_dead(name: str) -> bool:
    """Whether a file is temporary and its writer, of this machine, is no more."""
    return writer_is_dead(temporary_part(name))


def _later(one: float, other: float) -> float:
    """Return the later time; NaN, that of which nothing is known, stays."""
    return math.nan if math.isnan(one) or math.isnan(other) else max(one, other)
