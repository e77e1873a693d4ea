"""Files that are being written on this machine, before they are published."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raysae.errors import RaysaeError, StorageError
from raysae.storage.temporaries import temporary_name

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_BROKEN = {errno.EIO, errno.ESTALE}
FULL = {errno.ENOSPC: "is full", errno.EDQUOT: "has reached its quota"}

_NOTHING_LEFT = 1 << 20
"""Free bytes below which a failed write is taken for a full disk."""


@contextmanager
def finished_or_gone(local: Path) -> Iterator[Path]:
    """Give a path to write a file at; afterwards nothing is left there, whatever happened.

    Raises:
        StorageError: Its disk is full or broken, or writing there is denied. Not every library
            says so itself: torch and safetensors raise errors of their own.
    """
    try:
        yield local
    except RaysaeError:
        raise
    except Exception as error:
        if is_full(error, local):
            raise full_disk(local, getattr(error, "errno", None)) from error
        if isinstance(error, OSError) and error.errno in _DENIED | _BROKEN:
            said = os.strerror(error.errno)  # Libraries add their own words.
            raise explained(OSError(error.errno, said, error.filename), local) from error
        raise
    finally:
        local.unlink(missing_ok=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Make a file appear under a second path, without copying it where the system can.

    Args:
        source: The file.
        target: Where; the empty file that a scratch path begins as is replaced.
    """
    second = target.with_name(temporary_name())
    try:
        os.link(source, second)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
    else:
        second.replace(target)


def is_full(error: Exception, local: Path) -> bool:
    """Whether an error came of a full disk."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return shutil.disk_usage(local.parent).free < _NOTHING_LEFT


def explained(error: OSError, root: Path) -> StorageError:
    """Say what an error of the system means for a storage, and what can be done."""
    where = error.filename2 or error.filename or root
    if error.errno in FULL:
        return full_disk(where, error.errno)
    if error.errno in _DENIED:
        return StorageError(
            f"storage: {where} is denied ({error.strerror}); allow it or name another storage, and "
            "run again."
        )
    return StorageError(
        f"storage: {where} cannot be used ({error.strerror or error}); mend it or name another "
        "storage, and run again."
    )


def full_disk(where: object, number: int | None) -> StorageError:
    """Say that a disk is full."""
    how = FULL.get(number or errno.ENOSPC, FULL[errno.ENOSPC])
    return StorageError(
        f"storage: the disk of {where} {how}; free some space or name another storage, and run "
        "again: what is finished is kept."
    )
