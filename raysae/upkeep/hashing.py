"""Comparing files with what was written down of them, many at a time, as fast as they are read.

SHA-256 and reading both release Python's lock, so threads use all cores. What is in flight is
bounded: a buffer for each thread, and a few names that wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple

from raysae.artifacts import FileRecord
from raysae.errors import StorageError
from raysae.storage import Directory
from raysae.upkeep.text import counted

WAITING = 4
"""Files in work or waiting for each thread."""

TICK_S = 1.0


@dataclass(frozen=True)
class Check:
    """A file to be compared.

    Attributes:
        owner: Whose it is: `<kind>/<id>` or `scores`.
        shard: The shard that lists it; empty if it is the artifact's own.
        directory: The owner's.
        record: What it should be.
    """

    owner: str
    shard: str
    directory: Directory
    record: FileRecord


class Outcome(NamedTuple):
    """What became of a check.

    Attributes:
        check: Which.
        read: Bytes that were read.
        problem: What is wrong, to be put after the file's name; empty if nothing is.
        certain: Whether the file is surely lost: not if the storage did not let itself be read.
    """

    check: Check
    read: int
    problem: str
    certain: bool


def compare(check: Check, count: Callable[[int], None] | None = None) -> Outcome:
    """Read a file and compare size and SHA-256.

    Args:
        check: Which file.
        count: Is told of bytes as they are read.
    """
    record, read, digest = check.record, 0, hashlib.sha256()
    try:
        for piece in check.directory.stream(record.name):
            digest.update(piece)
            read += len(piece)
            if count is not None:
                count(len(piece))
    except FileNotFoundError:
        return Outcome(check, read, "is missing", certain=True)
    except StorageError as error:
        return Outcome(check, read, f"cannot be read ({str(error).rstrip('.')})", certain=False)
    if read != record.size:
        what = "shorter" if read < record.size else "longer"
        problem = f"is {what}: {counted(read, 'byte')} instead of {record.size:,}"
        return Outcome(check, read, problem, certain=True)
    if digest.hexdigest() != record.sha256:
        return Outcome(check, read, "is altered: its bytes are not those written", certain=True)
    return Outcome(check, read, "", certain=True)


def compare_all(
    checks: Iterable[Check], threads: int, count: Callable[[int], None], tick: Callable[[], None]
) -> Iterator[Outcome]:
    """Yield what became of each check, in the order in which they end.

    Args:
        checks: Read as there is room for them.
        threads: Files that are read at the same time.
        count: Is told of bytes as they are read, by any thread.
        tick: Is called now and then.
    """
    running: set[Future[Outcome]] = set()
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            for check in checks:
                running.add(pool.submit(compare, check, count))
                while len(running) >= threads * WAITING:
                    running, ended = _some_ended(running, tick)
                    yield from ended
            while running:
                running, ended = _some_ended(running, tick)
                yield from ended
        finally:
            for future in running:
                future.cancel()


def _some_ended(
    running: set[Future[Outcome]], tick: Callable[[], None]
) -> tuple[set[Future[Outcome]], list[Outcome]]:
    """Wait a moment; return what still runs, and what came of the rest."""
    done, left = wait(running, TICK_S, FIRST_COMPLETED)
    tick()
    return left, [future.result() for future in done]
