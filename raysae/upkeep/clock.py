"""What time it is in a storage, and how old things are there.

Ages are differences of times that one clock told: the storage's, which stamps every file. This
machine's clock may be hours wrong and does not matter.
"""

from __future__ import annotations

import math
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass

from raysae.errors import StorageError
from raysae.storage import TEMPORARY_PREFIX, Directory
from raysae.upkeep.inventory import PROBES


@dataclass(frozen=True)
class StorageClock:
    """A storage's clock, looked at once and carried on by this machine's count of seconds.

    Attributes:
        looked: What time it was there, in seconds.
        at: The count of seconds at that moment.
        limit: From how many seconds on a thing is old.
    """

    looked: float
    at: float
    limit: float

    @property
    def now(self) -> float:
        """What time it is there."""
        return self.looked + time.monotonic() - self.at

    def is_old(self, modified: float) -> bool:
        """Whether something written then is old; never if that is not known (NaN)."""
        return self.now - modified > self.limit


def storage_clock(root: Directory, limit: float) -> StorageClock:
    """Look at a storage's clock: write a small file, and see when it was written.

    Args:
        root: The storage.
        limit: From how many seconds on a thing is old.

    Raises:
        StorageError: It cannot be written, or does not tell when files are.
    """
    probes, name = root / PROBES, f"{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}"
    probes.put_bytes(name, b"now")
    at = time.monotonic()
    try:
        times = [entry.modified for entry in probes.entries() if entry.key == name]
    finally:
        with suppress(StorageError):  # where nothing can be deleted, it can be looked around
            probes.delete(name)
    if not times or not math.isfinite(times[0]):
        raise StorageError(
            f"storage: {root} does not tell when a file was written, so nothing's age is known; "
            "collect by hand."
        )
    return StorageClock(times[0], at, limit)
