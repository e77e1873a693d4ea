"""Taking away the marks of what is damaged, so that the next run makes it again.

Of the score table damaged data files go with them: a manifest may list them, and takes what it
lists for whole as long as a mark and a file of the listed size are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from raysae.artifacts import METADATA_FILE, OUTCOME_FILE, SPEC_FILE, WORK
from raysae.artifacts.marks import mark_name
from raysae.artifacts.score_table import SCORES
from raysae.errors import StorageError
from raysae.storage import Directory
from raysae.upkeep.checks import Damage


def repair(root: Directory, damage: Iterable[Damage]) -> Iterator[str]:
    """Remove marks, and `metadata.json` of their artifacts, and yield what was removed.

    Metadata goes first, and damaged scores go last: a kill in between leaves what is unfinished,
    whose next run finds the files of its marks as they are, so this has to be run again.

    Args:
        root: The storage.
        damage: Of which only what is certain counts.

    Raises:
        StorageError: It was denied; or some of it, which is left when all else is done, lies behind
            a symbolic link.
    """
    by_owner: dict[str, list[Damage]] = {}
    for one in damage:
        if one.certain:
            by_owner.setdefault(one.owner, []).append(one)
    linked = []
    for owner, ones in by_owner.items():
        directory = ones[0].where
        there = [name for name in _in_the_way(owner, ones) if directory.exists(name)]
        if not root.backend.is_inside(directory.path):
            linked.append(f"{directory} ({', '.join(there)})")
            continue
        if owner != SCORES:
            _touch(directory)
        for name in there:
            directory.remove([name])
            yield f"{owner}/{name}"
    if linked:
        raise StorageError(
            "storage: nothing is taken away behind a symbolic link; delete by hand what is named "
            f"in brackets in {'; '.join(linked)}."
        )


def _in_the_way(owner: str, damage: Iterable[Damage]) -> list[str]:
    """Return the files for which a job takes the damaged ones for whole, in the order to go."""
    marks = sorted({mark_name(one.shard) for one in damage if one.shard})
    if owner == SCORES:
        return marks + sorted({one.name for one in damage} - {*marks})
    # What a killed run left of its work holds the very files that were damaged since.
    outcome = [] if all(one.shard for one in damage) else [f"{WORK}/{OUTCOME_FILE}"]
    return [*outcome, METADATA_FILE, *marks]


def _touch(directory: Directory) -> None:
    """Write `spec.json` again as it is: what is unfinished from now on was touched now."""
    with suppress(FileNotFoundError):
        directory.put_bytes(SPEC_FILE, directory.read_bytes(SPEC_FILE))
