"""Copies of objects on this machine, shared by its processes and bounded in size.

All ranks of a machine read the same shards at the same time, so that one of them fetches a shard
and the others find it here. A copy stands for one write of an object: one that was damaged and
written again is fetched again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from raysae.errors import SettingsError, StorageError
from raysae.storage.scratch import FULL
from raysae.storage.temporaries import boot_id, is_temporary, temporary_name, writer_is_dead

DIRECTORY_VARIABLE = "RAYSAE_NODE_CACHE"
"""Environment variable that names the directory, on each node; the temporary directory if unset."""

BYTES_VARIABLE = "RAYSAE_NODE_CACHE_BYTES"
DEFAULT_BYTES = 64 << 30
"""Bytes that copies may take, and the environment variable that sets them: 64 GiB if unset."""


_UNKNOWN_BYTES = 1 << 30
"""Room that is made for a copy of which nobody knows how large it will be: that of a shard."""

_PREFIX = "raysae-"
_COPY = re.compile(rf"{_PREFIX}[0-9a-f]{{40}}")


class FullDiskError(StorageError):
    """There is no room on this machine's disk for a copy."""


def full_cache(path: Path, number: int) -> FullDiskError:
    """Say that there is no room for a copy.

    Args:
        path: Where it was written.
        number: The system's number of the error.
    """
    return FullDiskError(
        f"storage: the disk of {path} {FULL[number]}; free some space, name another directory with "
        f"TMPDIR and {DIRECTORY_VARIABLE}, or let copies take less with {BYTES_VARIABLE}, and run "
        "again."
    )


def open_cached(version: str, size: int | None, fetch: Callable[[Path], None]) -> int:
    """Return a descriptor, opened for reading, of this machine's copy of an object.

    The descriptor stays good when the copy is dropped for another one. A copy is not synced, so one
    from before the machine's last start is not trusted.

    Args:
        version: The object's URI, and what another write of it changes.
        size: Its bytes; None if that is not known before.
        fetch: Copies the object to a path. Where it raises FullDiskError, it is called again when
            the copies that were not used for longest have made room.

    Raises:
        FileNotFoundError: What `fetch` raised.
        StorageError: The directory cannot be used, or its disk is full of other things.
        SettingsError: Its bound is no number.
    """
    limit = _limit()
    directory = cache_directory()
    digest = hashlib.sha256(f"{boot_id()}{version}".encode()).hexdigest()
    path = directory / f"{_PREFIX}{digest[:40]}"
    with _locked(directory / f"{_PREFIX}{digest[:2]}.lock"):
        descriptor = _open_whole(path, size)
        if descriptor is not None:
            return descriptor
        descriptor = _fetch(path, size, fetch)
    _drop_oldest(directory, limit)
    return descriptor


def _open_whole(path: Path, size: int | None) -> int | None:
    """Open a copy and count it as used; None if there is none of that size."""
    try:
        os.utime(path)
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if size is None or os.fstat(descriptor).st_size == size:
        return descriptor
    os.close(descriptor)
    return None


def _fetch(path: Path, size: int | None, fetch: Callable[[Path], None]) -> int:
    """Make a copy and open it; older ones make room for it where the disk is full."""
    temporary = path.with_name(temporary_name())
    try:
        while True:
            try:
                fetch(temporary)
                break
            except FullDiskError:
                temporary.unlink(missing_ok=True)
                if not _make_room(path.parent, size or _UNKNOWN_BYTES):
                    raise
        # Under its name another process may drop it at once, to make room for its own.
        descriptor = os.open(temporary, os.O_RDONLY)
        temporary.replace(path)
        return descriptor
    finally:
        temporary.unlink(missing_ok=True)


def cache_directory() -> Path:
    """Return where copies lie, which only this user can enter."""
    directory = Path(os.environ.get(DIRECTORY_VARIABLE) or _default_directory())
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unusable(directory, error) from error
    return directory


def _default_directory() -> Path:
    try:
        return Path(tempfile.gettempdir()) / f"raysae-cache-{os.getuid()}"
    except FileNotFoundError as error:  # Python finds none that can be written, or they are full.
        raise _unusable("the temporary directory", error) from error


def _unusable(directory: object, error: OSError) -> StorageError:
    return StorageError(
        f"storage: {directory} cannot hold copies of objects ({error.strerror}); name another "
        f"directory with {DIRECTORY_VARIABLE} on every node and run again."
    )


def _limit() -> int:
    """Return the bytes that copies may take."""
    value = os.environ.get(BYTES_VARIABLE) or str(DEFAULT_BYTES)
    if not value.isdecimal():
        raise SettingsError(f"{BYTES_VARIABLE}: got {value!r}, which is no number of bytes.")
    return int(value)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time fetch an object; a dead one holds no lock."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("wb"))
            fcntl.flock(file, fcntl.LOCK_EX)  # Not every shared file system has locks.
        except OSError as error:
            raise _unusable(path.parent, error) from error
        yield


def _drop_oldest(directory: Path, limit: int) -> None:
    """Remove the copies that were not used for longest until the others fit."""
    copies = _copies(directory)
    taken = sum(size for _, size, _ in copies)
    for _, size, path in copies[:-1]:
        if taken <= limit:
            break
        path.unlink(missing_ok=True)
        taken -= size


def _make_room(directory: Path, size: int) -> bool:
    """Remove the copies that were not used for longest, at least one, until so many bytes are free.

    A copy that a process has mapped frees nothing yet, so the disk is asked; a quota that is
    exhausted does not show there, so the copies' bytes are counted as well.

    Returns:
        Whether there was a copy to remove.
    """
    copies, dropped = _copies(directory), 0
    for _, copy_size, path in copies:
        path.unlink(missing_ok=True)
        dropped += copy_size
        if dropped >= size and shutil.disk_usage(directory).free >= size:
            break
    return bool(copies)


def _copies(directory: Path) -> list[tuple[float, int, Path]]:
    """Return (time of last use, bytes, path) of all copies, oldest first.

    Unfinished ones of dead processes are removed. The directory may hold other files, too, and
    other users' copies.
    """
    copies = []
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            status = path.lstat()
            is_file = stat.S_ISREG(status.st_mode)
            if status.st_uid != os.getuid() or not (is_file or stat.S_ISLNK(status.st_mode)):
                continue
            if is_temporary(path.name) and writer_is_dead(path.name):
                path.unlink()
            elif is_file and _COPY.fullmatch(path.name):
                copies.append((status.st_mtime, status.st_size, path))
    return sorted(copies)
