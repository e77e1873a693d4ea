"""Copies of objects on this machine, shared by its processes and bounded in size.

Only for objects that never change under their name. All ranks of a machine read the same shards at
the same time, so that one of them fetches a shard and the others find it here.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raysae.errors import SettingsError, StorageError
from raysae.storage.temporaries import boot_id, is_temporary, temporary_name, writer_is_dead

DIRECTORY_VARIABLE = "RAYSAE_NODE_CACHE"
"""Environment variable that names the directory, on each node; the temporary directory if unset."""

BYTES_VARIABLE = "RAYSAE_NODE_CACHE_BYTES"
DEFAULT_BYTES = 64 << 30
"""Bytes that copies may take, and the environment variable that sets them: 64 GiB if unset."""


def open_cached(name: str, fetch: Callable[[Path], None]) -> int:
    """Return a descriptor, opened for reading, of this machine's copy of an object.

    The descriptor stays good when the copy is dropped for another one. A copy is not synced, so one
    from before the machine's last start is not trusted.

    Args:
        name: The object's URI.
        fetch: Copies the object to a path.

    Raises:
        FileNotFoundError: What `fetch` raised.
        StorageError: The directory cannot be used.
        SettingsError: Its bound is no number.
    """
    limit = _limit()
    directory = cache_directory()
    digest = hashlib.sha256(f"{boot_id()}{name}".encode()).hexdigest()
    path = directory / digest[:40]
    with _locked(directory / f"{digest[:2]}.lock"):
        with suppress(FileNotFoundError):
            os.utime(path)
            return os.open(path, os.O_RDONLY)
        temporary = directory / temporary_name()
        try:
            fetch(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    _drop_oldest(directory, limit)
    return descriptor


def cache_directory() -> Path:
    """Return where copies lie, which only this user can enter."""
    default = Path(tempfile.gettempdir()) / f"raysae-cache-{os.getuid()}"
    directory = Path(os.environ.get(DIRECTORY_VARIABLE) or default)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StorageError(
            f"storage: {directory} cannot hold copies of objects ({error.strerror}); name another "
            f"directory with {DIRECTORY_VARIABLE} on every node and run again."
        ) from error
    return directory


def _limit() -> int:
    """Return the bytes that copies may take."""
    value = os.environ.get(BYTES_VARIABLE) or str(DEFAULT_BYTES)
    if not value.isdecimal():
        raise SettingsError(f"{BYTES_VARIABLE}: got {value!r}, which is no number of bytes.")
    return int(value)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time fetch an object; a dead one holds no lock."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _drop_oldest(directory: Path, limit: int) -> None:
    """Remove the copies that were not used for longest until the others fit."""
    copies = []
    for path in directory.iterdir():
        if is_temporary(path.name):
            if writer_is_dead(path.name):
                path.unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError):
            status = path.stat()
            if path.suffix != ".lock":
                copies.append((status.st_mtime, status.st_size, path))
    taken = sum(size for _, size, _ in copies)
    for _, size, path in sorted(copies)[:-1]:
        if taken <= limit:
            break
        path.unlink(missing_ok=True)
        taken -= size
