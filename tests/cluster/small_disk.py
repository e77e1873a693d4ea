"""A disk that is soon full."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

FILLER = "filler"
"""The file that `fill` writes."""


@contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes on a directory of its own, and unmount it on leaving.

    It is in memory where that is allowed, and in a file otherwise, where a file system of its own
    takes some of the bytes. The test is skipped where neither can be mounted.
    """
    with tempfile.TemporaryDirectory(prefix="small-disk-") as temporary:
        directory = Path(temporary) / "disk"
        directory.mkdir()
        if not (_mount_memory(directory, size) or _mount_file(directory, size)):
            pytest.skip("no small disk can be mounted here: that takes the rights of root")
        try:
            yield directory
        finally:
            _unmount(directory)


def fill(directory: Path, leave: int) -> Path:
    """Fill up the disk that a directory is on, and return the file that takes the space.

    Args:
        directory: Where the file is put; one that an earlier call left there is replaced.
        leave: Bytes that stay free at most; less than one block fewer do.
    """
    filler = directory / FILLER
    filler.unlink(missing_ok=True)
    with filler.open("wb") as file:
        size = 0
        # A large file takes some blocks for its own map.
        while (excess := free(directory) - leave) > 0:
            try:
                os.posix_fallocate(file.fileno(), size, excess)
            except OSError as error:
                # Another process was faster: some of it is taken already.
                if error.errno != errno.ENOSPC:
                    raise
            else:
                size += excess
    return filler


def free(directory: Path) -> int:
    """Return the bytes that are free on the disk that a directory is on."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _mount_memory(directory: Path, size: int) -> bool:
    return _runs(["mount", "-t", "tmpfs", "-o", f"size={size}", "raysae-small-disk", directory])


def _mount_file(directory: Path, size: int) -> bool:
    image = directory.with_name("image")
    with image.open("wb") as file:
        file.truncate(size)
    return _runs(["mkfs.ext4", "-q", "-m", "0", image]) and _runs(
        ["mount", "-o", "loop", image, directory]
    )


def _unmount(directory: Path) -> None:
    """Unmount it even where a process that a test left behind has a file open on it."""
    if not _runs(["umount", directory]):
        subprocess.run(["umount", "--lazy", directory], check=True)


def _runs(command: Sequence[str | Path]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
