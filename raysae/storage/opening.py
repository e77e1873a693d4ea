"""Opening a storage: what a job finds out about it before anything runs."""

from __future__ import annotations

import sys
import uuid
from typing import NamedTuple

from raysae.errors import DataError, SettingsError, StorageError
from raysae.storage.directory import Directory
from raysae.storage.documents import to_json
from raysae.storage.filesystems import object_filesystem
from raysae.storage.local import LocalBackend
from raysae.storage.objects import ObjectBackend
from raysae.storage.temporaries import TEMPORARY_PREFIX
from raysae.storage.uris import LocalUri, parse_uri

FORMAT_VERSION = 2
"""Version of what docs/storage.md lays down; part of every artifact's id."""

MARKER = "raysae.json"
"""Says that a directory is a storage of raysae's, and in which format."""


def storage_at(uri: str, setting: str = "storage") -> Directory:
    """Return a storage's root without looking at it; of an object store, open the client.

    Args:
        uri: A path, `file:///path`, `s3://bucket/prefix`, `gs://…`, `abfs://…`.
        setting: The setting that holds it, for messages.

    Raises:
        SettingsError: It is no URI of a storage, or there is no client for it.
    """
    parsed = parse_uri(uri, setting)
    if isinstance(parsed, LocalUri):
        return Directory(LocalBackend(parsed.path))
    object_filesystem(parsed.scheme, setting, parsed.account)
    return Directory(ObjectBackend(parsed))


def open_storage(uri: str, setting: str = "storage") -> Directory:
    """Return a storage's root after proving that a job can use it; create it if there is none.

    Sends seven small requests, nine for a new one. Nothing is written to one of another format.

    Raises:
        SettingsError: It cannot be written, listed or read, or cannot keep two runs apart.
        DataError: A newer raysae wrote it.
    """
    root = storage_at(uri, setting)
    try:
        there = _is_storage(root)
        _probe(root)
        if not there:
            root.create(MARKER, to_json({"format_version": FORMAT_VERSION}))
    except (StorageError, FileNotFoundError) as error:
        words = str(error).removeprefix("storage: ")
        if isinstance(error, FileNotFoundError):
            words = f"there is no such bucket ({words})."
        raise SettingsError(f"{setting}: {root} cannot hold artifacts: {words}") from error
    if not there:
        check_format(root)  # another raysae may have created it at the same moment
    return root


def check_format(root: Directory) -> None:
    """See that this code understands a storage.

    Raises:
        DataError: It is none, or a newer raysae wrote it.
    """
    if not _is_storage(root):
        raise DataError(
            f"{root} has no {MARKER}, so it is no storage of raysae's; name another directory."
        )


def _is_storage(root: Directory) -> bool:
    """Whether a storage is there already.

    Raises:
        DataError: There is one of another format.
    """
    try:
        version = root.read_json(MARKER).get("format_version")
    except FileNotFoundError:
        return False
    except DataError as error:
        raise DataError(
            f'{root.describe(MARKER)} is damaged; write {{"format_version": {FORMAT_VERSION}}} '
            "into it, if this raysae wrote the storage, and run again."
        ) from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{root} is a storage of format {version}, but this raysae reads and writes format "
            f"{FORMAT_VERSION}; install the raysae that made it, or name another directory."
        )
    return True


class _Step(NamedTuple):
    """One thing that a storage has to do, in the words of the message if it does not."""

    works: bool
    problem: str


def _probe(root: Directory) -> None:
    """Write, create, list, read and delete a small file under a name of its own."""
    directory = root / ".probes"
    name = f"{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}"
    one, two = b"one", b"two"
    created = directory.create(name, one)
    try:
        steps = (
            _Step(created, "a file that was just created was there before"),
            _Step(
                not directory.create(name, two),
                "it lets two writers create one file, which would mix two runs up; use a store "
                "with conditional writes (If-None-Match)",
            ),
            _Step(directory.read_bytes(name) == one, "a file reads otherwise than written"),
            _Step(
                any(entry.key == name for entry in directory.entries()),
                "a file that was just written is not listed",
            ),
        )
    finally:
        _delete_probe(directory, name)
    for step in steps:
        if not step.works:
            raise StorageError(f"{step.problem}.")


def _delete_probe(directory: Directory, name: str) -> None:
    """Remove the probe, or warn: a storage that keeps everything can be worked with."""
    try:
        directory.delete(name)
        directory.prune()
    except StorageError as error:
        sys.stdout.write(
            f"storage: warning: nothing can be deleted, so checkpoints and probes stay ({error})\n"
        )
