"""Taking a snapshot: one listing, then only what no earlier job learned of each file.

Much of it is waiting for disks and networks, so threads read; their number changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from raysae.corpora.contents import changing, contents_reader, count_threads, read_all
from raysae.corpora.files import CorpusFiles, below
from raysae.corpora.formats import check_one_format
from raysae.corpora.hub import list_hub
from raysae.corpora.known_files import SETTLE_S, KnownFiles
from raysae.corpora.learned import Contents, FileSchema, Learned, Schemas
from raysae.corpora.listing import ListedFile, Listing, list_local
from raysae.corpora.locations import HubUri, Location
from raysae.corpora.objects import list_objects
from raysae.corpora.parallel import in_order
from raysae.corpora.patterns import Wanted
from raysae.corpora.snapshot import CorpusSnapshot
from raysae.errors import DataError
from raysae.storage.uris import LocalUri

SOME_FILES = 1000
SOME_BYTES = 2**30
"""A corpus from here on is looked up among the known files: a smaller one is read as fast."""

MANY_FILES = 10_000
MANY_BYTES = 4 * 2**30
"""So much that is new is worth waiting for until it may be remembered; see `known_files`."""


class Taken(NamedTuple):
    """What was found of a corpus.

    Attributes:
        snapshot: Its files and rows.
        schemas: Their distinct schemas, in the order of the first file that has each.
        left_out: How many corpus files there are besides, which are not meant.
    """

    snapshot: CorpusSnapshot
    schemas: list[FileSchema]
    left_out: int


def take_snapshot(
    name: str,
    location: Location,
    max_rows: int,
    setting: str = "corpus.path",
    wanted: Wanted = Wanted(),  # noqa: B008 - immutable
) -> Taken:
    """List a corpus' files and fingerprint them, in order, until `max_rows` are found (0: all).

    Local files that no earlier job fingerprinted are read whole; of others that are new the ends
    are read. It runs once per job, on the driver.

    Args:
        name: The corpus' name.
        location: Where its files are.
        max_rows: Rows that are used.
        setting: The field of a job's settings that holds the location, for messages.
        wanted: Which of the files there are meant.

    Raises:
        SettingsError: The location does not exist or cannot be listed.
        DataError: A file is not of its format, or changes meanwhile, or none has a row; or there
            are files of several formats.
    """
    everything = list_location(location, setting)
    listing = wanted.of(everything)
    check_one_format(str(location), (file.name for file in listing.files))
    settled_at = time.monotonic() + SETTLE_S
    schemas = Schemas()
    some = len(listing.files) >= SOME_FILES or _local_bytes(listing, listing.files) >= SOME_BYTES
    known = KnownFiles(schemas) if some else None
    keys = [file.key for file in listing.files]
    learned: list[Learned | None] = known.find(keys) if known else [None] * len(keys)
    with _unchanged(listing, location, setting) as new:
        counted, count = _count_files(listing, learned, schemas, max_rows)
        unknown = [index for index in range(count) if learned[index] is None]
        new.extend(listing.files[index] for index in unknown)
        _wait_if_worth_it(listing, new, settled_at)
        known_contents = [counted.get(index) for index in unknown]
        reads = read_all(listing, new, known_contents, schemas, settled_at)
    found = [keys[index] for index in range(count) if learned[index] is not None]
    for index, read in zip(unknown, reads, strict=True):
        learned[index] = read.learned
    if known:
        fresh = {
            file.key: read.learned
            for file, read in zip(new, reads, strict=True)
            # Places may be many, and a user's file of them all is to stay small.
            if read.settled and not read.learned.places
        }
        known.remember(fresh, found)
    left_out = len(everything.files) - len(listing.files)
    used = [entry for entry in learned[:count] if entry]
    return Taken(*_snapshot(name, listing, used, max_rows), left_out)


def list_location(location: Location, setting: str) -> Listing:
    """List the corpus files at or below a place.

    Raises:
        SettingsError: It does not exist or cannot be listed.
        DataError: It holds no corpus file.
    """
    if isinstance(location, LocalUri):
        return list_local(location.path, setting)
    if isinstance(location, HubUri):
        return list_hub(location, setting)
    return list_objects(location, setting)


def _local_bytes(listing: Listing, files: Sequence[ListedFile]) -> int:
    """Return the bytes that new files cost: all of local ones, hardly any of others."""
    return sum(file.size for file in files) if listing.is_local else 0


def _wait_if_worth_it(listing: Listing, new: Sequence[ListedFile], settled_at: float) -> None:
    """Wait until what is read may be remembered, if all that is new takes much longer anyway."""
    if listing.is_local and (len(new) >= MANY_FILES or _local_bytes(listing, new) >= MANY_BYTES):
        time.sleep(max(0.0, settled_at - time.monotonic()))


def _count_files(
    listing: Listing, learned: Sequence[Learned | None], schemas: Schemas, max_rows: int
) -> tuple[dict[int, Contents], int]:
    """Return how many files hold the first `max_rows` rows, and what was counted for that."""
    if max_rows == 0:
        return {}, len(listing.files)
    unknown = [index for index, entry in enumerate(learned) if entry is None]
    read = contents_reader(listing, schemas)
    files = [listing.files[index] for index in unknown]
    new = in_order(read, files, count_threads(listing), cautious=True)
    counted: dict[int, Contents] = {}
    rows = 0
    for index, entry in enumerate(learned):
        if entry is None:
            counted[index] = next(new)
        rows += counted[index].rows if entry is None else entry.rows
        if rows >= max_rows:
            return counted, index + 1
    return counted, len(learned)


@contextmanager
def _unchanged(listing: Listing, location: Location, setting: str) -> Iterator[list[ListedFile]]:
    """Compare objects that were read with a second listing: no end may be another content's.

    Conditions on every request would say the same, but each store's client has its own. Local files
    are compared one by one when they are read, and commits do not change.

    Yields:
        A list for the files that are read; after an error all count.

    Raises:
        DataError: One of them changed or vanished meanwhile.
    """
    files: list[ListedFile] = []
    try:
        yield files
    except DataError:
        files = listing.files
        raise
    finally:
        if files and not listing.is_local and not listing.pinned:
            keys = {file.name: file.key for file in list_location(location, setting).files}
            for file in files:
                if keys.get(file.name) != file.key:
                    raise changing(below(listing.root, file.name))


def _snapshot(
    name: str, listing: Listing, learned: Sequence[Learned], max_rows: int
) -> tuple[CorpusSnapshot, list[FileSchema]]:
    files = listing.files[: len(learned)]
    rows = [entry.rows for entry in learned]
    if max_rows:
        rows[-1] -= max(0, sum(rows) - max_rows)
    if sum(rows) == 0:
        names = ", ".join(file.name for file in files[:5]) + ", …" * (len(files) > 5)
        raise DataError(f"The corpus {name} has no rows: {names} are empty.")
    snapshot = CorpusSnapshot(
        name,
        CorpusFiles.of(
            listing.root,
            [file.name for file in files],
            [file.size for file in files],
            [entry.fingerprint for entry in learned],
            rows,
            mtimes_ns=[file.mtime_ns for file in files],
            ctimes_ns=[file.ctime_ns for file in files],
            places=[entry.places for entry in learned],
        ),
    )
    firsts: dict[int, FileSchema] = {}
    for file, entry in zip(files, learned, strict=True):
        # A file of JSON lines has no columns if it has no rows.
        if id(entry.schema) not in firsts and (entry.rows or len(entry.schema)):
            firsts[id(entry.schema)] = FileSchema(below(listing.root, file.name), entry.schema)
    return snapshot, list(firsts.values())
