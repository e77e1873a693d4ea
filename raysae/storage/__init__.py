"""Storage roots and atomic publishing.

A file appears under its final name whole or not at all: it is written under a temporary name in the
same directory, flushed to the disk, and moved there by `os.replace`.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from raysae.errors import SettingsError

TEMPORARY_PREFIX = ".tmp-"
"""Files with this prefix are unfinished work of some process and are never read."""


def _usual_permissions() -> int:
    """Return what a new file is allowed; the mask can be read by setting it only."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


_PERMISSIONS = _usual_permissions()


def local_root(uri: str) -> Path:
    """Return the local directory that a storage URI names.

    Args:
        uri: A path, or `file:///path`.

    Raises:
        SettingsError: The scheme is another one than `file`, or a URI names another machine or no
            absolute path.
    """
    if "://" not in uri:
        return Path(uri).expanduser().absolute()
    parts = urlsplit(uri)
    if parts.scheme != "file":
        raise SettingsError(
            f"storage: {uri!r} has the scheme {parts.scheme!r}, but only local directories "
            "(a path or file:///path) can hold artifacts; mount the bucket or name a directory."
        )
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise SettingsError(
            f"storage: {uri!r} names no absolute path of this machine; write file:///path, with "
            "three slashes, or the path alone."
        )
    return Path(unquote(parts.path))


def writable_root(uri: str) -> Path:
    """Create the storage directory if there is none and prove that it can be written.

    Raises:
        SettingsError: It cannot be created or written.
    """
    root = local_root(uri)
    probe = root / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"storage: {root} cannot be written ({error.strerror}); name a writable directory "
            "with --storage."
        ) from error
    return root


def temporary_sibling(final: Path) -> Path:
    """Return a fresh temporary path beside `final`, on the same file system, never used before."""
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{final.name}")


def put_file(temporary: Path, final: Path) -> None:
    """Publish a finished temporary file under its final name, durably.

    Args:
        temporary: A closed file on the same file system, see `temporary_sibling`.
        final: Where it shall appear; an existing file is replaced.
    """
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    # Some writers (safetensors) leave files that only their owner can read.
    temporary.chmod(_PERMISSIONS)
    temporary.replace(final)
    _sync_directory(final.parent)


def put_bytes(final: Path, data: bytes) -> None:
    """Publish `data` under `final`, whole or not at all."""
    temporary = temporary_sibling(final)
    try:
        temporary.write_bytes(data)
        put_file(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def put_json(final: Path, value: Any) -> None:
    """Publish `value` as indented JSON with sorted keys.

    JSON has no numbers that are not finite: NaN and infinities are written as null, which
    `raysae.artifacts.as_number` reads as NaN.
    """
    text = json.dumps(_finite(value), indent=2, sort_keys=True, allow_nan=False)
    put_bytes(final, (text + "\n").encode())


def _finite(value: Any) -> Any:
    """Replace the numbers that JSON lacks by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _sync_directory(directory: Path) -> None:
    """Make a rename durable: without this a power cut can undo it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
