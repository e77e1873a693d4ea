"""The state of one artifact, as far as names, sizes and small files tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from raysae.errors import RaysaeError
from raysae.storage import Entry
from raysae.upkeep.files import FileSurvey, survey_files
from raysae.upkeep.inventory import Found
from raysae.upkeep.listed import Listed, listed_files, read_marks, shard_of_files
from raysae.upkeep.text import counted, time_text

SHOWN_PROBLEMS = 20
"""Sentences about one artifact at most; the rest are counted."""


@dataclass
class ArtifactStatus:
    """What is known of one artifact.

    Attributes:
        name: `<kind>/<id>`.
        state: `finished`; `unfinished`; `damaged` if files are not there as listed; `unreadable`.
        finished_at: When its run wrote its last file, by that machine's clock.
        touched: When its newest file was written, by the storage's clock.
        shards: Complete ones.
        planned: How many there will be; 0 if it has none.
        rows: Rows in it.
        rejected: Rows that could not be used.
        reasons: Rejected rows by reason, as far as they are told.
        files: Number of files.
        bytes: Theirs.
        work: Files and bytes of an unfinished one that no mark lists (yet).
        checkpoints: Names of those that training can go on from.
        left: What is in progress or left behind, by what it is: files and bytes.
        inputs: Artifacts that it was made from, as far as they are there.
        used_by: Artifacts that were made from it.
        problems: Sentences.
    """

    name: str
    state: str
    finished_at: str = ""
    touched: str = ""
    shards: int = 0
    planned: int = 0
    rows: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    files: int = 0
    bytes: int = 0
    work: tuple[int, int] = (0, 0)
    checkpoints: list[str] = field(default_factory=list)
    left: dict[str, tuple[int, int]] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    used_by: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def artifact_status(found: Found) -> ArtifactStatus:
    """Look at an artifact's files; what cannot be read is said in `problems`."""
    status = ArtifactStatus(found.name, "unfinished", finished_at=found.finished_at)
    status.problems += [
        f"{problem.file}: {problem.sentence}" if problem.file else problem.sentence
        for problem in found.problems
    ]
    if not found.id:
        status.state = "unreadable"
        return status
    try:
        listed = listed_files(found)
        survey = survey_files(found.directory, listed.sizes)
        problems = [*listed.problems, *_lost(found, survey)]
    except RaysaeError as error:
        status.state = "unreadable"
        status.problems.append(str(error).rstrip("."))
        return status
    if found.metadata is not None and survey.marks < listed.shards:
        lost = listed.shards - survey.marks
        verb = "is" if lost == 1 else "are"
        problems.append(f"{counted(lost, 'mark')} of {listed.shards:,} shards {verb} missing")
    status.problems += _shortened(problems)
    if found.metadata is not None:
        status.state = "damaged" if problems else "finished"
    if found.problems:
        status.state = "unreadable"
    _count(status, found, listed, survey)
    return status


def _count(status: ArtifactStatus, found: Found, listed: Listed, survey: FileSurvey) -> None:
    """Fill in what was counted."""
    status.touched = time_text(survey.touched)
    lost = {*survey.missing, *survey.wrong}
    shards = set(shard_of_files(found, lost).values()) if lost else set()
    status.planned = found.planned or listed.shards
    if found.metadata is None:
        for state in read_marks(found.directory, shards):
            listed.add_mark(state.mark or {}, -1)
    else:
        listed.shards = min(listed.shards - len(shards), survey.marks)
    status.shards, status.rows, status.rejected = listed.shards, listed.rows, listed.rejected
    status.reasons = dict(+listed.reasons)
    status.files, status.bytes = survey.files, survey.bytes
    left = {"temporary": survey.temporaries, "attempt mark": survey.attempts}
    if found.metadata is None:
        status.work = _sum(survey.unlisted)
        status.checkpoints = survey.checkpoints
    else:
        left["unlisted file"] = survey.unlisted
    status.left = {name: _sum(entries) for name, entries in left.items() if entries}


def _lost(found: Found, survey: FileSurvey) -> list[str]:
    """Say which listed files are not there as they were listed, with the shards they belong to."""
    what = dict.fromkeys(survey.missing, "is missing")
    for name, size in survey.wrong.items():
        what[name] = f"has {counted(size, 'byte')}, more or fewer than its mark says"
    if not what:
        return []
    shards = shard_of_files(found, set(what))
    return [
        f"{shards[name]}: {name} {what[name]}" if name in shards else f"{name} {what[name]}"
        for name in sorted(what)
    ]


def _shortened(problems: Sequence[str]) -> list[str]:
    shown = list(problems[:SHOWN_PROBLEMS])
    if len(problems) > SHOWN_PROBLEMS:
        shown.append(f"and {len(problems) - SHOWN_PROBLEMS:,} more of the kind")
    return shown


def _sum(entries: Sequence[Entry]) -> tuple[int, int]:
    """Return number and bytes of files."""
    return len(entries), sum(entry.size for entry in entries)
