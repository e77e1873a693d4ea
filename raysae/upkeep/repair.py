"""Taking away the marks of what is damaged, so that the next run makes it again.

Of the score table damaged data files go with them: a manifest may list them, and takes what it
lists for whole as long as a mark and a file of the listed size are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from raysae.artifacts import METADATA_FILE, SPEC_FILE
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
        StorageError: It was denied, or lies behind a symbolic link.
    """
    by_owner: dict[str, tuple[Directory, set[str], set[str]]] = {}
    for one in damage:
        if one.certain:
            _, marks, data = by_owner.setdefault(one.owner, (one.where, set(), set()))
            if one.shard:
                marks.add(mark_name(one.shard))
            if one.owner == SCORES:
                data.add(one.name)
    for owner, (directory, marks, data) in by_owner.items():
        if not root.backend.is_inside(directory.path):
            raise StorageError(
                f"storage: {directory} lies behind a symbolic link, so nothing is taken away "
                "there; repair it where it lies."
            )
        names = sorted(marks) + sorted(data - marks)
        if owner != SCORES:
            names.insert(0, METADATA_FILE)
            _touch(directory)
        for name in names:
            if directory.exists(name):
                directory.remove([name])
                yield f"{owner}/{name}"


def _touch(directory: Directory) -> None:
    """Write `spec.json` again as it is: what is unfinished from now on was touched now."""
    with suppress(FileNotFoundError):
        directory.put_bytes(SPEC_FILE, directory.read_bytes(SPEC_FILE))
