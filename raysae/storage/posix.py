"""The system calls that publishing on a file system consists of, each one a step of its own.

They stand behind a class so that the tests can stop a writer between any two of them and lose what
was not yet synced.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
"""What the system says of a name that no file has, or can have."""


class FileStat(NamedTuple):
    """What a listing tells of a file: its path, its bytes, and when it was written (seconds)."""

    path: Path
    size: int
    modified: float


def _usual_permissions() -> int:
    """Return what a new file is allowed; the mask can be read by setting it only."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


_PERMISSIONS = _usual_permissions()


class Posix:
    """A real file system. Errors are the usual `OSError`s."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a file, which others may see half written until then."""
        path.write_bytes(data)

    def sync_file(self, path: Path) -> None:
        """Bring a file's content to the disk, and give it the permissions of any other file.

        Some writers (safetensors, temporary files) leave files that only their owner can read.
        """
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(_PERMISSIONS)

    def replace(self, source: Path, target: Path) -> None:
        """Give a file its name in one step; an existing one of that name is replaced."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name in one step.

        Raises:
            FileExistsError: The name is taken.
        """
        os.link(source, target)

    def sync_directory(self, directory: Path) -> None:
        """Make new names durable: without this a loss of power can undo them."""
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there."""
        path.unlink(missing_ok=True)

    def is_directory(self, path: Path) -> bool:
        """Whether there is a directory of that name."""
        return path.is_dir()

    def make_directory(self, directory: Path) -> None:
        """Create a directory in one that exists, unless another process was faster."""
        directory.mkdir(exist_ok=True)

    def read(self, path: Path) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: It is not there.
        """
        return path.read_bytes()

    def stat(self, path: Path) -> FileStat | None:
        """Return what is known of a file; None if there is none, or a directory.

        A name that is too long, or a link that leads to itself, is that of no file.
        """
        try:
            status = path.stat()
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise
        if not stat.S_ISREG(status.st_mode):
            return None
        return FileStat(path, status.st_size, status.st_mtime)

    def files(self, directory: Path) -> Iterator[FileStat]:
        """Yield all files below a directory, in order of their paths.

        Links to other directories are not followed; what vanishes meanwhile is left out.
        """
        try:
            with os.scandir(directory) as listing:
                names = sorted(
                    _in_paths(entry)
                    for entry in listing
                    # A link to a directory would be taken for a file, and removed as one.
                    if not (entry.is_symlink() and entry.is_dir())
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in names:
            if name.endswith("/"):
                yield from self.files(directory / name)
            elif (found := self.stat(directory / name)) is not None:
                yield found

    def directories(self, directory: Path) -> list[str]:
        """Return the names of the directories in one, sorted; links to directories count."""
        try:
            with os.scandir(directory) as listing:
                return sorted(entry.name for entry in listing if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def _in_paths(entry: os.DirEntry[str]) -> str:
    """Return an entry's name as it stands in paths, so that `a-b` comes before `a/b`."""
    return f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
