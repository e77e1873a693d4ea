"""Uses: which finished artifacts a run reads, so that nobody removes them meanwhile.

A run that reads what was finished long ago leaves no trace in it. So it says so in
`<storage>/uses/<token>.json` before it looks whether the artifacts are finished, says it again
every few minutes, and takes it back at its end. What a killed run leaves grows old, and is removed
then.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from raysae.errors import StorageError
from raysae.storage import Directory

USES = "uses"
"""The directory, in the storage's root."""

AGAIN_S = 600.0
"""Between two times that a use is written: collection calls nothing old that is not an hour old."""


@contextmanager
def using(root: Directory, names: Sequence[str]) -> Iterator[None]:
    """Say that artifacts are read, for as long as the block lasts and however long that is.

    Whether they are finished is to be looked up inside the block: `raysae.upkeep.collect` first
    makes what it removes unfinished, and then looks for uses again.

    Args:
        root: The storage.
        names: The artifacts, as `<kind>/<id>`; `scores` for the score table, by whoever writes it
            or reads row groups that no manifest may list.
    """
    name = f"{uuid.uuid4().hex}.json"
    directory, over = root / USES, threading.Event()
    content = {"artifacts": sorted(names)}
    directory.put_json(name, content)
    again = threading.Thread(
        target=_write_again, args=(directory, name, content, over), name="raysae-use", daemon=True
    )
    again.start()
    try:
        yield
    finally:
        over.set()
        again.join()  # or it would write what is deleted now
        # Where nothing can be deleted, it stays.
        with suppress(StorageError):
            directory.delete(name)


def _write_again(
    directory: Directory, name: str, content: Mapping[str, Any], over: threading.Event
) -> None:
    """Write a use every `AGAIN_S` seconds until its run is over, so that it does not grow old.

    A storage that is away is no reason to end the run, which hears of it when it needs the storage
    itself; the next turn brings back even a use that was taken for a killed run's and removed.
    """
    while not over.wait(AGAIN_S):
        with suppress(StorageError, FileNotFoundError):
            directory.put_json(name, content)
