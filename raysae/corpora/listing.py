"""What a corpus' directory or prefix holds: its files, by one listing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from raysae.corpora.formats import OTHER_JSON, SUFFIXES, is_data_file
from raysae.errors import DataError, SettingsError

KEY_BYTES = 16


class ListedFile(NamedTuple):
    """A corpus file as a listing shows it.

    Attributes:
        name: Path below the listing's root.
        size: Bytes.
        key: Hash of all that the listing tells of the file; another key, another state.
        fingerprint: Its content's, where the listing tells it; else empty.
        mtime_ns: When a local file was last written; 0 elsewhere.
        ctime_ns: When a local file was last changed; 0 elsewhere.
    """

    name: str
    size: int
    key: bytes
    fingerprint: str = ""
    mtime_ns: int = 0
    ctime_ns: int = 0


@dataclass(frozen=True)
class Listing:
    """The corpus files at or below a place.

    Attributes:
        root: What their URIs begin with, without a slash at its end.
        files: In order of their names.
        pinned: Whether the same URI always gives the same bytes, as with a commit.
    """

    root: str
    files: list[ListedFile]
    pinned: bool = False

    @property
    def is_local(self) -> bool:
        """Whether the files lie in this machine's file systems."""
        return self.root.startswith("/")


def key_of(*parts: object) -> bytes:
    """Hash what identifies a file's state."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return blake2b(text, digest_size=KEY_BYTES).digest()


def local_key(path: str, status: os.stat_result) -> bytes:
    """Hash what a file system tells of a file: path, size, both time stamps and the inode."""
    return key_of(
        "file", path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    )


def is_corpus_file(name: str) -> bool:
    """Whether a name below the corpus directory counts.

    Names that begin with a dot or an underscore are other programs' unfinished work.
    """
    *_, last = parts = name.split("/")
    return is_data_file(last) and not any(map(is_hidden, parts))


def nothing_there(place: object, way_out: str) -> DataError:
    """Return the error of a place without corpus files."""
    endings = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
    return DataError(f"{place} holds no file named {endings}; {way_out}. {OTHER_JSON}")


def is_hidden(part: str) -> bool:
    """Whether a directory or file of that name, and all below it, is left out."""
    return part.startswith((".", "_"))


def list_local(path: Path, setting: str) -> Listing:
    """List a local file, or the corpus files below a directory.

    Symbolic links to files are followed, those to directories are not, so that no loop is possible.

    Args:
        path: Absolute.
        setting: What names it, for messages.

    Raises:
        SettingsError: There is nothing at `path`, or it cannot be listed.
        DataError: There is no corpus file there, or one that cannot be looked at.
    """
    try:
        if path.is_file():
            return Listing(str(path.parent), [_listed(str(path), path.name, path.stat())])
        if not path.is_dir():
            raise SettingsError(
                f"{setting}: {path} does not exist; name a corpus file or its directory."
            )
        files = sorted(_walk(str(path)))
    except PermissionError as error:
        raise SettingsError(
            f"{setting}: {error.filename or path} cannot be listed (permission denied); let this "
            "user read it."
        ) from error
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or path} went away while {path} was listed; run again."
        ) from error
    except OSError as error:
        raise DataError(
            f"{error.filename or path} cannot be listed ({error.strerror}); mend it and run again."
        ) from error
    if not files:
        raise nothing_there(
            path, "name the corpus' directory (links to directories are not followed)"
        )
    return Listing(str(path), files)


def _walk(root: str) -> Iterator[ListedFile]:
    pending = [("", root)]
    while pending:
        prefix, directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{prefix}{entry.name}/", entry.path))
                elif is_data_file(entry.name) and _is_file(entry):
                    yield _listed(entry.path, prefix + entry.name, entry.stat())


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file or a link to one; pipes and links to directories are none.

    Raises:
        DataError: It is a link to nothing: a file is missing, which must not go unnoticed.
    """
    if entry.is_symlink() and not Path(entry.path).exists():
        raise DataError(f"{entry.path} is a link to a file that is missing; restore or remove it.")
    return entry.is_file()


def _listed(path: str, name: str, status: os.stat_result) -> ListedFile:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path!r} has a name that is no UTF-8; rename it.") from error
    return ListedFile(
        name,
        status.st_size,
        local_key(path, status),
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
    )
