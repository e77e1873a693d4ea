"""What a storage holds: finished, half-done, damaged, left behind, and how big.

Only reads, and looks at names, sizes and small files alone; `raysae.upkeep.verify` reads contents.
What cannot be read is told in its artifact's lines, and the job goes on and ends with 0: a report
on a damaged storage is what it was asked for. Memory grows with the files of the largest artifact
(some hundred bytes each), not with the storage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

from raysae.artifacts.score_table import SCORES
from raysae.errors import SettingsError
from raysae.storage import FORMAT_VERSION, Directory
from raysae.upkeep.artifact_status import ArtifactStatus, artifact_status
from raysae.upkeep.inventory import Found, artifacts, links, open_for_upkeep, strangers
from raysae.upkeep.score_status import ScoreStatus, score_status
from raysae.upkeep.status_text import artifact_lines, score_lines, total_lines


@dataclass(frozen=True)
class StatusSettings:
    """What to look at.

    Args:
        storage: Directory or URI that holds the artifacts.
        kind: Only artifacts of this kind: `snapshots`, `activations`, `saes`, `weights`, `subsets`,
            `tuned`, `reports`, or `scores` for the score table; all if empty.
        artifact: Only this one, as `<kind>/<id>`; all if empty.
        json: Print one line of JSON instead of text, right before the result line.
    """

    storage: str = "storage"
    kind: str = ""
    artifact: str = ""
    json: bool = False


class Held(NamedTuple):
    """What all artifacts that were looked at come to.

    Attributes:
        storage: The storage.
        rows: Rows in them.
        rejected: Rows that could not be used.
    """

    storage: str
    rows: int
    rejected: int


def run_status(settings: StatusSettings) -> Held:
    """Print what a storage holds.

    Raises:
        SettingsError: There is no such artifact or kind.
        DataError: It is no storage, or one of another format.
    """
    root = open_for_upkeep(settings.storage)
    there = list(artifacts(root))
    shown = _wanted(there, settings)
    says = _silent if settings.json else _say
    says(f"status: {root}, format {FORMAT_VERSION}")
    made_from = links(there)
    statuses = []
    for found in shown:
        status = artifact_status(found)
        status.inputs = sorted(made_from[found.name])
        status.used_by = sorted(name for name, needed in made_from.items() if found.name in needed)
        statuses.append(status)
        says(*artifact_lines(status))
    scores = score_status(root) if _with_scores(settings) else None
    others = [] if settings.kind or settings.artifact else strangers(root)
    if scores is not None:
        says(*score_lines(scores))
    says(*(f"{name}  is no artifact of raysae's, so nothing is known of it" for name in others))
    says(*total_lines(statuses, scores))
    if settings.json:
        _say(json.dumps(_document(root, statuses, scores, others)))
    rows, rejected = (sum(getattr(s, name) for s in statuses) for name in ("rows", "rejected"))
    return Held(str(root), rows, rejected)


def _wanted(there: Iterable[Found], settings: StatusSettings) -> list[Found]:
    """Return the artifacts that the settings ask for.

    Raises:
        SettingsError: There is none of that name or kind.
    """
    found = list(there)
    if settings.artifact and settings.artifact not in {one.name for one in found}:
        raise SettingsError(
            f"artifact: {settings.artifact!r} is not in {settings.storage}; write <kind>/<id> as "
            "this job prints it without --artifact."
        )
    kinds = {one.kind for one in found} | {SCORES}
    if settings.kind and settings.kind not in kinds:
        raise SettingsError(
            f"kind: {settings.kind!r} is not in {settings.storage}, which has "
            f"{', '.join(sorted(kinds))}."
        )
    return [
        one
        for one in found
        if settings.artifact in {"", one.name} and settings.kind in {"", one.kind}
    ]


def _with_scores(settings: StatusSettings) -> bool:
    return not settings.artifact and settings.kind in {"", SCORES}


def _document(
    root: Directory,
    statuses: Iterable[ArtifactStatus],
    scores: ScoreStatus | None,
    others: Iterable[str],
) -> Mapping[str, object]:
    """Return what programs read."""
    listed = [asdict(status) for status in statuses]
    return {
        "storage": str(root),
        "format_version": FORMAT_VERSION,
        "artifacts": listed,
        "scores": None if scores is None else asdict(scores),
        "unknown": list(others),
        "bytes": sum(one["bytes"] for one in listed) + (scores.stored if scores else 0),
    }


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _silent(*_: str) -> None:
    """Say nothing: programs read the document instead."""
