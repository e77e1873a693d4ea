"""Manifests: which row groups of the score table are live.

`manifests/<number>.parquet` never changes; the one with the highest number counts. Publishing
writes a new one, under a name that must be free: of two runs at once the later one finds its number
taken and starts again from the other one's manifest.

What is published together is a *series*: one run's row groups, in which every sample of a corpus is
once for each scorer. Of one corpus several may be live, made with other SAEs or of other snapshots;
together they would count samples twice, so a reader takes one of them, the newest as a rule.

Whoever removes old manifests has to keep those that are younger than a publication may take: a run
that has read one of them counts on finding the next number taken if there was a next one.
"""

from __future__ import annotations

import random
import re
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysae.artifacts.manifest_file import (
    MANIFEST_SCHEMA,
    SORTED_BY,
    Manifest,
    encode,
    latest_series,
    open_manifest,
)
from raysae.errors import DataError, StorageError
from raysae.storage import Directory

KEPT_SERIES = 16
"""How many series of a corpus are live; of more, those that were published last."""

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

    def publish(self, groups: pa.Table, series: str) -> int:
        """Make row groups live as one series, in place of what the series was before.

        Args:
            groups: In `MANIFEST_SCHEMA`, in any order, of any series.
            series: The series' name.

        Returns:
            The number of the manifest in which they are: an existing one if it says the same.

        Raises:
            DataError: Two of them hold the same rows; or the latest manifest cannot be read.
            StorageError: Other runs published all the time.
        """
        for attempt in range(_ATTEMPTS):
            latest = self.latest()
            live, number = latest.table(), latest.number + 1
            merged = republished(live, groups, series, number)
            if merged.equals(live):
                self.directory.settle()
                return latest.number
            if self.directory.create(_name(number), encode(merged, number, latest.number)):
                return number
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**attempt)))
        raise StorageError(
            f"storage: other runs published in {self.directory} {_ATTEMPTS} times while this one "
            "tried; run again: what is finished is kept."
        )


def republished(live: pa.Table, groups: pa.Table, series: str, number: int) -> pa.Table:
    """Return a manifest's rows once a series was published: sorted, of the newest series alone.

    Args:
        live: The rows of the manifest before.
        groups: The series' row groups.
        series: Its name.
        number: The number of the manifest; a series that stays as it is keeps its own.

    Raises:
        DataError: Two of `groups` hold the same rows.
    """
    _check_disjoint(groups)
    mine = pc.equal(live["series"], series)
    before, others = live.filter(mine), live.filter(pc.invert(mine))
    published = before["published"][0].as_py() if len(before) else number
    stamped = _sorted(_stamped(groups, series, published))
    if not stamped.equals(before):
        stamped = _stamped(stamped, series, number)
    return _sorted(latest_series(pa.concat_tables([others, stamped]), KEPT_SERIES))


def _stamped(groups: pa.Table, series: str, published: int) -> pa.Table:
    """Return row groups as parts of a series."""
    columns = {name: groups[name] for name in MANIFEST_SCHEMA.names}
    columns["series"] = pa.array([series] * len(groups), pa.string())
    columns["published"] = pa.array([published] * len(groups), pa.int64())
    return pa.table(columns, MANIFEST_SCHEMA)


def _sorted(rows: pa.Table) -> pa.Table:
    return rows.sort_by([(name, "ascending") for name in SORTED_BY]).combine_chunks()


def _check_disjoint(groups: pa.Table) -> None:
    """Raise DataError if two row groups of one lineage overlap."""
    ordered = groups.sort_by([("lineage", "ascending"), ("start", "ascending")])
    lineages = ordered["lineage"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts, stops = ordered["start"].to_numpy(), ordered["stop"].to_numpy()
    twice = np.flatnonzero((lineages[1:] == lineages[:-1]) & (starts[1:] < stops[:-1]))
    if len(twice):
        path = ordered["path"][int(twice[0])].as_py()
        raise DataError(
            f"{path} and another row group to be published hold the same rows; publish one of them."
        )


def _name(number: int) -> str:
    return f"{number:08d}.parquet"
