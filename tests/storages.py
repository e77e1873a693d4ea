"""Directories of a test as storages."""

from __future__ import annotations

from pathlib import Path

from raysae.storage import Directory, storage_at


def at(path: Path) -> Directory:
    """Return a local directory as a storage's."""
    return storage_at(str(path))


def path_of(directory: Directory) -> Path:
    """Return where a directory of a local storage lies."""
    return Path(str(directory))
