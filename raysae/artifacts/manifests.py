"""Manifests: which row groups of the score table are live.

`manifests/<number>.parquet` never changes; the one with the highest number counts. Publishing
writes a new one, under a name that must be free: of two runs at once the later one finds its number
taken and starts again from the other one's manifest.

Whoever removes old manifests has to keep those that are younger than a publication may take: a run
that has read one of them counts on finding the next number taken if there was a next one.
"""

from __future__ import annotations

import random
import re
import time

import numpy as np
import pyarrow as pa

from raysae.artifacts.manifest_file import (
    MANIFEST_SCHEMA,
    SORTED_BY,
    Manifest,
    encode,
    open_manifest,
)
from raysae.errors import DataError, StorageError
from raysae.storage import Directory

_NAME = re.compile(r"([0-9]{8,})\.parquet")
_ATTEMPTS = 100
_LONGEST_PAUSE_S = 0.5


class Manifests:
    """The manifests of one score table.

    Args:
        directory: Where they lie.
    """

    def __init__(self, directory: Directory) -> None:
        self.directory = directory

    def numbers(self) -> list[int]:
        """Return the numbers of all manifests, ascending, by one listing."""
        found = (_NAME.fullmatch(entry.key) for entry in self.directory.entries())
        return sorted(int(one[1]) for one in found if one and one[0] == _name(int(one[1])))

    def latest(self) -> Manifest:
        """Return the manifest that counts; an empty one of number 0 if there is none.

        Raises:
            DataError: It is damaged, or a newer raysae wrote it.
        """
        for _ in range(_ATTEMPTS):
            numbers = self.numbers()
            if not numbers:
                nothing = encode(MANIFEST_SCHEMA.empty_table(), 0, 0)
                return open_manifest(nothing, 0, str(self.directory))
            try:
                return self.read(numbers[-1])
            except FileNotFoundError:
                # Removed since it was listed, because there are many newer ones by now.
                continue
        raise StorageError(
            f"storage: {self.directory} lists manifests that are not there; run again."
        )

    def read(self, number: int) -> Manifest:
        """Open one manifest.

        Raises:
            FileNotFoundError: There is none of this number.
            DataError: It is damaged, or a newer raysae wrote it.
        """
        data = self.directory.read_bytes(_name(number))
        return open_manifest(data, number, self.directory.describe(_name(number)))

    def append(self, added: pa.Table) -> int:
        """Make row groups live, in place of those of their lineage that overlap them.

        Args:
            added: In `MANIFEST_SCHEMA`, in any order.

        Returns:
            The number of the manifest in which they are: an existing one if it says the same.

        Raises:
            DataError: Two of them hold the same rows; or the latest manifest cannot be read.
            StorageError: Other runs published all the time.
        """
        for attempt in range(_ATTEMPTS):
            latest = self.latest()
            live = latest.table()
            merged = replaced(live, added)
            if merged.equals(live):
                return latest.number
            number = latest.number + 1
            if self.directory.create(_name(number), encode(merged, number, latest.number)):
                return number
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**attempt)))
        raise StorageError(
            f"storage: other runs published in {self.directory} {_ATTEMPTS} times while this one "
            "tried; run again: what is finished is kept."
        )


def replaced(live: pa.Table, added: pa.Table) -> pa.Table:
    """Return the row groups that are live once some more are: sorted, none overlapping another.

    Args:
        live: A manifest's rows.
        added: Those that take the place of what they overlap.

    Raises:
        DataError: Two of `added` overlap each other.
    """
    rows = pa.concat_tables([live, added])
    codes = rows["lineage"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    bounds = np.concatenate([rows["start"].to_numpy(), rows["stop"].to_numpy()])
    values, ranks = np.unique(bounds, return_inverse=True)
    width = len(values) + 1
    starts, stops = (codes * width + part for part in np.split(ranks.astype(np.int64), 2))
    new_starts, new_stops = np.sort(starts[len(live) :]), np.sort(stops[len(live) :])
    # Of the added ones of this lineage: those that begin before the end, less those that end before
    # the beginning. A lineage's numbers are all below those of the next one.
    overlaps = np.searchsorted(new_starts, stops) - np.searchsorted(new_stops, starts, "right")
    twice = np.flatnonzero(overlaps[len(live) :] > 1)
    if len(twice):
        path = added["path"][int(twice[0])].as_py()
        raise DataError(
            f"{path} and another row group to be published hold the same rows; publish one of them."
        )
    kept = np.concatenate([overlaps[: len(live)] == 0, np.ones(len(added), bool)])
    merged = rows.filter(pa.array(kept))
    return merged.sort_by([(name, "ascending") for name in SORTED_BY])


def _name(number: int) -> str:
    return f"{number:08d}.parquet"
