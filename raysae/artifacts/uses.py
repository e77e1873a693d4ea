"""Uses: which finished artifacts a run reads, so that nobody removes them meanwhile.

A run that reads what was finished long ago leaves no trace in it. So it says so in
`<storage>/uses/<token>.json` before it looks whether the artifacts are finished, and takes that
back at its end. What a killed run leaves is removed when it is old.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from raysae.errors import StorageError
from raysae.storage import Directory

USES = "uses"
"""The directory, in the storage's root."""


@contextmanager
def using(root: Directory, names: Sequence[str]) -> Iterator[None]:
    """Say that artifacts are read, for as long as the block lasts.

    Whether they are finished is to be looked up inside the block: `raysae.upkeep.collect` first
    makes what it removes unfinished, and then looks for uses again.

    Args:
        root: The storage.
        names: The artifacts, as `<kind>/<id>`; `scores` for the score table, by whoever writes it
            or reads row groups that no manifest may list.
    """
    name = f"{uuid.uuid4().hex}.json"
    directory = root / USES
    directory.put_json(name, {"artifacts": sorted(names)})
    try:
        yield
    finally:
        # Where nothing can be deleted, it stays.
        with suppress(StorageError):
            directory.delete(name)
