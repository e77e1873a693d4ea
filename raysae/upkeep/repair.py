"""Taking away the marks of what is damaged, so that the next run makes it again.

Of the score table damaged data files go with them: a manifest may list them, and takes what it
lists for whole as long as a mark and a file of the listed size are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from raysae.artifacts import METADATA_FILE, OUTCOME_FILE, SPEC_FILE, WORK
from raysae.artifacts.marks import mark_name
from raysae.artifacts.score_table import SCORES
from raysae.artifacts.shard_list import is_shard_list
from raysae.errors import StorageError
from raysae.storage import Directory
from raysae.upkeep.checks import Damage

NAMED = 3
"""Files that a sentence names."""


def repair(root: Directory, damage: Iterable[Damage]) -> Iterator[str]:
    """Remove marks, and `metadata.json` of their artifacts, and yield what was removed.

    Metadata goes before marks, and damaged scores go last: a kill in between leaves what is
    unfinished, whose next run finds the files of its marks as they are, so this has to be run
    again.

    Args:
        root: The storage.
        damage: Of which only what is certain counts.

    Raises:
        StorageError: It was denied, or lies behind a symbolic link; all else is done then.
    """
    by_owner: dict[str, list[Damage]] = {}
    for one in damage:
        if one.certain:
            by_owner.setdefault(one.owner, []).append(one)
    left = []
    for owner, ones in by_owner.items():
        try:
            yield from _take_away(root, owner, ones)
        except StorageError as error:
            left.append(str(error).removeprefix("storage: ").rstrip("."))
    if left:
        raise StorageError(f"storage: {'; '.join(left)}; then run the jobs that are named above.")


def _take_away(root: Directory, owner: str, damage: Sequence[Damage]) -> Iterator[str]:
    """Remove what is in the way in one artifact, and yield what was removed."""
    directory = damage[0].where
    names = [name for name in _in_the_way(owner, damage) if directory.exists(name)]
    if names and not root.backend.is_inside(directory.path):
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        raise StorageError(
            f"storage: {directory} lies behind a symbolic link, where nothing is taken away: "
            f"delete {', '.join(names[:NAMED])}{more} there by hand."
        )
    if owner != SCORES:
        _touch(directory)
    for name in names:
        directory.remove([name])
        yield f"{owner}/{name}"


def _in_the_way(owner: str, damage: Sequence[Damage]) -> list[str]:
    """Return the files for which a job takes the damaged ones for whole, in the order to go."""
    marks = sorted({mark_name(one.shard) for one in damage if one.shard})
    if owner == SCORES:
        return marks + sorted({one.name for one in damage} - {*marks})
    names = [METADATA_FILE, *marks]
    own = {one.name for one in damage if not one.shard} - {METADATA_FILE}
    if not all(is_shard_list(name) for name in own):
        # What a killed run left of its work holds the very files that were damaged since.
        names.insert(0, f"{WORK}/{OUTCOME_FILE}")
    return names


def _touch(directory: Directory) -> None:
    """Write `spec.json` again as it is: what is unfinished from now on was touched now."""
    with suppress(FileNotFoundError):
        directory.put_bytes(SPEC_FILE, directory.read_bytes(SPEC_FILE))
