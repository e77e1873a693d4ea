"""fsspec clients of object stores, for storages and for corpora."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import fsspec

from raysae.errors import SettingsError
from raysae.storage.uris import EXTRAS

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
"""Seconds until a request counts as failed; `raysae.storage.retry` repeats it."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"max_attempts": 3, "mode": "standard"},
        }
    },
}


@lru_cache(maxsize=16)
def object_filesystem(scheme: str, setting: str = "storage") -> Any:
    """Return the fsspec file system of an object store: one for each process.

    Nothing is cached between calls: another process may have written meanwhile. Credentials,
    regions and endpoints come from the client's own environment variables and files.

    Args:
        scheme: A key of `raysae.storage.uris.EXTRAS`.
        setting: The setting that names the store, for messages.

    Raises:
        SettingsError: Its client is not installed.
    """
    try:
        return fsspec.filesystem(scheme, use_listings_cache=False, **_OPTIONS.get(scheme, {}))
    except ImportError as error:
        raise SettingsError(
            f"{setting}: {scheme}:// needs a client that is not installed ({error}); install it "
            f"with pip install 'raysae[{EXTRAS[scheme]}]' on every node."
        ) from error
