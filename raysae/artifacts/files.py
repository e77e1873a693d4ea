"""Published files with what is needed to check them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from raysae.artifacts.appending import AppendedFile
from raysae.artifacts.ids import file_sha256
from raysae.storage import Directory, finished_or_gone, link_or_copy

CHECKSUM = "{checksum}"
"""In a file's name: the content's checksum, so that two runs that computed other bits (another GPU,
say) never mix their files."""


@dataclass(frozen=True, order=True)
class FileRecord:
    """A published file, as marks and metadata list it.

    Attributes:
        name: Its name below the artifact's directory.
        size: Bytes.
        sha256: Of its bytes, hex.
    """

    name: str
    size: int
    sha256: str


def publish_file(
    directory: Directory, local: Path, name: str, sha256: str | None = None
) -> FileRecord:
    """Publish a finished file from `directory.scratch` and say what it holds.

    Args:
        directory: Where.
        local: The file, which is gone afterwards.
        name: Its name there; `{checksum}` in it becomes the content's first 16 hex digits.
        sha256: Of its bytes, if that is known.
    """
    sha256 = sha256 or file_sha256(local)
    name = name.replace(CHECKSUM, sha256[:16])
    record = FileRecord(name, local.stat().st_size, sha256)
    directory.put_file(local, name)
    return record


def publish_bytes(directory: Directory, name: str, data: bytes) -> FileRecord:
    """Publish some bytes and say what they are."""
    directory.put_bytes(name, data)
    return FileRecord(name, len(data), hashlib.sha256(data).hexdigest())


class Publication:
    """The files that a stage publishes in one directory, recorded as they appear."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.records: list[FileRecord] = []

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give a local path to write a file at, and publish it unless an exception is raised."""
        with finished_or_gone(self.directory.scratch(name)) as local:
            yield local
            self.records.append(publish_file(self.directory, local, name))

    @contextmanager
    def appending(self, name: str) -> Iterator[AppendedFile]:
        """As `writing`, for a large file: what is appended is hashed and written meanwhile."""
        with finished_or_gone(self.directory.scratch(name)) as local:
            # What goes to a bucket is read again at once.
            with AppendedFile(local, direct=self.directory.is_local) as file:
                yield file
            self.records.append(publish_file(self.directory, local, name, file.sha256()))

    def upload(self, local: Path, name: str) -> None:
        """Publish a copy of a finished local file, wherever that lies."""
        with self.writing(name) as copy:
            link_or_copy(local, copy)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Publish some bytes."""
        self.records.append(publish_bytes(self.directory, name, data))


def records_to_json(records: Iterable[FileRecord]) -> list[dict[str, Any]]:
    """Return records as marks and metadata hold them."""
    return [asdict(record) for record in records]


def records_from_json(listed: Iterable[Mapping[str, Any]]) -> list[FileRecord]:
    """Read what `records_to_json` made.

    Raises:
        KeyError, TypeError: It is something else.
    """
    return [_record(one["name"], one["size"], one["sha256"]) for one in listed]


def _record(name: object, size: object, sha256: object) -> FileRecord:
    if not (isinstance(name, str) and type(size) is int and isinstance(sha256, str)):
        raise TypeError(f"{name!r}, {size!r}, {sha256!r} are no name, size and checksum")
    return FileRecord(name, size, sha256)


def all_there(directory: Directory, records: Iterable[FileRecord]) -> bool:
    """Whether every file is there with its size; contents are not read."""
    listed = list(records)
    return directory.sizes([one.name for one in listed]) == [one.size for one in listed]
