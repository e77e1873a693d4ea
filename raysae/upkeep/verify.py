"""Whether a storage is whole: every file that something lists is read and compared.

Marks, metadata and manifests hold the size and SHA-256 of what was written. A job compares sizes
when it starts; this compares contents, which finds what disks, networks and people alter.

`--repair` takes away the marks of damaged shards, and `metadata.json` of their artifacts, so that
the next run of the job that made them makes exactly these shards again. It removes nothing else
but damaged files of the score table, and the note on what a killed run was about to finish: no
other data, and nothing that could not be read for sure, since a store that is down for an hour is
no damage. What it makes unfinished counts as begun at that moment, so that
`raysae.upkeep.collect` leaves it alone for as long as any other work.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from raysae.artifacts import METADATA_FILE
from raysae.artifacts.score_table import SCORES
from raysae.errors import DataError, SettingsError, StorageError
from raysae.storage import Directory
from raysae.storage.local import LocalBackend
from raysae.upkeep.checks import Damage, checks_of, damage_of, score_checks, still_damaged
from raysae.upkeep.hashing import Check, compare_all
from raysae.upkeep.inventory import artifacts, open_for_upkeep
from raysae.upkeep.repair import repair
from raysae.upkeep.text import counted, size_text

PROGRESS_S = 5.0

JOBS = {
    "activations": "jobs/cache.py",
    "saes": "jobs/train.py",
    "tuned": "jobs/finetune.py",
    "snapshots": "any job on that corpus",
    **dict.fromkeys(("weights", SCORES, "subsets", "reports"), "jobs/filter.py"),
}
"""What makes an artifact of a kind again, with the settings that it was made with."""


@dataclass(frozen=True)
class VerifySettings:
    """What to read again.

    Args:
        storage: Directory or URI that holds the artifacts.
        artifact: Only this one, as `<kind>/<id>`, or `scores` for the score table; all if empty.
        threads: Files that are read at the same time; 0 for as many as there are CPU cores, and
            four times as many where the storage is an object store.
        repair: Take away the marks of damaged shards, so that the next run makes them again.
        json: Print one line of JSON instead of text, right before the result line.
    """

    storage: str = "storage"
    artifact: str = ""
    threads: int = 0
    repair: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise SettingsError(f"threads: must be 0 or more, got {self.threads}.")


@dataclass(frozen=True)
class Verified:
    """What was found.

    Attributes:
        storage: The storage.
        files: Files that were compared.
        bytes: Bytes that were read.
        seconds: How long it took.
        damage: What is not as it was written.
        removed: What `repair` took away, as `<kind>/<id>/<name>`.
    """

    storage: str
    files: int
    bytes: int
    seconds: float
    damage: list[Damage]
    removed: list[str]


def run_verify(settings: VerifySettings) -> Verified:
    """Read and compare, and say what is damaged.

    Raises:
        SettingsError: There is no such artifact.
        DataError: Something is damaged; or it is no storage, or one of another format.
    """
    root = open_for_upkeep(settings.storage)
    progress = _Progress(silent=settings.json)
    damage, removed = [], []
    for one in _compared(_checks(root, settings), _threads(root, settings), progress):
        damage.append(one)
        progress.damaged += 1
        progress.say(f"damaged: {sentence(one)}")
    progress.say(f"{progress.so_far()}, {f'{len(damage):,} damaged' if damage else 'all whole'}")
    denied = None
    if settings.repair:
        try:
            for name in repair(root, still_damaged(root, damage)):
                removed.append(name)
                progress.say(f"repair: took away {name}")
        except StorageError as error:
            denied = error
    verified = Verified(
        str(root), progress.files, progress.bytes, progress.seconds, damage, removed
    )
    if settings.json:
        sys.stdout.write(f"{json.dumps(_document(verified))}\n")
    if denied:
        raise denied
    if damage:
        raise DataError(_summary(settings, verified))
    return verified


def _threads(root: Directory, settings: VerifySettings) -> int:
    """Return how many files are read at once: requests to object stores mostly wait."""
    times = 1 if isinstance(root.backend, LocalBackend) else 4
    return settings.threads or (os.cpu_count() or 1) * times


def sentence(damage: Damage) -> str:
    """Say what is damaged, whose it is, and how it is mended."""
    shard = f", {damage.shard}" if damage.shard and damage.name != damage.shard else ""
    return f"{damage.owner}{shard}: {damage.name} {damage.problem}; {_way_out(damage)}"


def _way_out(damage: Damage) -> str:
    job = JOBS.get(damage.owner.partition("/")[0], "the job that made it")
    if damage.name == METADATA_FILE and not damage.certain:
        return f"see why, or delete it by hand and run {job}, which makes it again"
    if not damage.certain:
        return "see why, or delete it by hand, and verify again"
    if damage.shard:
        return f"--repair and {job} make {'it' if damage.owner == SCORES else 'this shard'} again"
    return f"--repair and {job} make again what is not in a shard"


def _checks(root: Directory, settings: VerifySettings) -> Iterator[Check | Damage]:
    """Yield what is to be compared.

    Raises:
        SettingsError: There is no such artifact.
    """
    known = False
    if settings.artifact != SCORES:
        for found in artifacts(root, name=settings.artifact):
            known = True
            yield from checks_of(found)
    if settings.artifact and settings.artifact != SCORES and not known:
        raise SettingsError(
            f"artifact: {settings.artifact!r} is not in {root}; write <kind>/<id> as "
            "jobs/status.py prints it, or scores."
        )
    if settings.artifact in {"", SCORES}:
        yield from score_checks(root)


def _compared(
    checks: Iterable[Check | Damage], threads: int, progress: _Progress
) -> Iterator[Damage]:
    """Compare files, and yield what is damaged."""
    found: list[Damage] = []

    def to_compare() -> Iterator[Check]:
        for one in checks:
            if isinstance(one, Damage):
                found.append(one)
            else:
                yield one

    for outcome in compare_all(to_compare(), threads, progress.count, progress.tick):
        progress.files += 1
        if outcome.problem:
            yield damage_of(outcome)
        while found:
            yield found.pop(0)
    yield from found


class _Progress:
    """Counts what was read, and prints a line every few seconds."""

    def __init__(self, *, silent: bool) -> None:
        self.files = 0
        self.bytes = 0
        self.damaged = 0
        self._silent = silent
        self._lock = threading.Lock()
        self._started = self._said = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def count(self, read: int) -> None:
        """Count bytes, in any thread."""
        with self._lock:
            self.bytes += read

    def tick(self) -> None:
        """Print a line if the last one is some seconds old."""
        if time.monotonic() - self._said >= PROGRESS_S:
            self._said = time.monotonic()
            self.say(f"{self.so_far()}, {self.damaged:,} damaged so far")

    def say(self, line: str) -> None:
        """Print a line."""
        if not self._silent:
            sys.stdout.write(f"verify: {line}\n")
            sys.stdout.flush()

    def so_far(self) -> str:
        """Say how much was read, and how fast."""
        speed = size_text(int(self.bytes / max(self.seconds, 1e-9)))
        return f"read {counted(self.files, 'file')}, {size_text(self.bytes)}, {speed}/s"


def _document(verified: Verified) -> dict[str, Any]:
    """Return what programs read."""
    damage = [
        {name: value for name, value in one._asdict().items() if name != "where"}
        for one in verified.damage
    ]
    return {**vars(verified), "damage": damage, "seconds": round(verified.seconds, 3)}


def _summary(settings: VerifySettings, verified: Verified) -> str:
    owners = ", ".join(sorted({one.owner for one in verified.damage}))
    what = f"{counted(len(verified.damage), 'thing is', 'things are')} damaged in {owners}"
    if not any(one.certain for one in verified.damage):
        return f"{what}; what to do about each is said above."
    if settings.repair:
        return f"{what}; run the jobs that are named above with the settings of then."
    return f"{what}; run this again with --repair, then the jobs that are named above."
