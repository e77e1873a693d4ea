"""Checksums in names: `<shard>…-<checksum>.<type>`, see docs/storage.md."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from raysae.errors import StorageError

_CHECKSUM = re.compile(r"-([0-9a-f]{16})\.[^/]+$")
"""The first 16 hex digits of the SHA-256 of what a file holds."""


def fits_its_name(local: Path, key: str) -> bool:
    """Whether a copy holds what its name says; True if that says nothing.

    Args:
        local: The copy.
        key: The name of what was copied.
    """
    found = _CHECKSUM.search(key)
    if found is None:
        return True
    with local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(found[1])


def other_bytes(where: str) -> StorageError:
    """Say that a file does not hold what its name says.

    Args:
        where: Its path or URI.
    """
    return StorageError(
        f"storage: {where} holds other bytes than its name says; delete it and run the job again, "
        "which makes it anew."
    )
