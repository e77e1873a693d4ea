"""Removing files of a directory tree without ever leaving it through a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from raysae.errors import StorageError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def is_inside(root: Path, key: str) -> bool:
    """Whether a name below a root lies there itself, and no part of it is a symbolic link."""
    path = root
    for part in key.split("/") if key else ():
        path /= part
        if path.is_symlink():
            return False
    return True


def remove_inside(root: Path, key: str) -> None:
    """Remove a file, if it is there; a symbolic link is removed itself, never what it leads to.

    A directory, or what would lie below a file, is no file, as in object stores. Each directory on
    the way is opened from the one before it, so that none can be exchanged for a link meanwhile.

    Raises:
        StorageError: A directory on the way is a symbolic link.
        OSError: The system refused.
    """
    *parents, name = key.split("/")
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        for part in parents:
            try:
                below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                    raise
                if not _is_link(part, descriptor):
                    return
                raise StorageError(
                    f"storage: {root / key} is reached through a symbolic link, so it is left "
                    "alone; remove it by hand where it lies."
                ) from error
            os.close(descriptor)
            descriptor = below
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(name, dir_fd=descriptor)
    except OSError as error:
        error.filename = str(root / key)
        raise
    finally:
        os.close(descriptor)


def _is_link(name: str, descriptor: int) -> bool:
    """Whether a name in an open directory is a symbolic link."""
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISLNK(status.st_mode)


def prune(root: Path, key: str) -> None:
    """Remove the empty directories in a directory, and itself if it is empty then.

    Only `rmdir` is called, which refuses a directory that holds anything; links are not followed.
    """
    directory = root / key
    if not is_inside(root, key):
        return
    for parent, _, _ in os.walk(directory, topdown=False, followlinks=False):
        with suppress(OSError):
            Path(parent).rmdir()
