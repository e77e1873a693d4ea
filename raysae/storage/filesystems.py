"""fsspec clients of object stores, for storages and for corpora."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import fsspec

from raysae.errors import SettingsError
from raysae.storage.uris import EXTRAS

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
"""Seconds without a byte until a request counts as failed; `raysae.storage.retry` repeats it.

None bounds a whole request, which may carry gigabytes.
"""


def _s3_options() -> dict[str, Any]:
    """Send bodies at once: for the leave to send one (`Expect`), aiohttp waits without a bound."""
    from aiobotocore.session import get_session
    from botocore.handlers import add_expect_header

    session = get_session()
    session.unregister("before-call.s3", add_expect_header)
    return {
        "session": session,
        "config_kwargs": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"total_max_attempts": 2, "mode": "standard"},
        },
    }


def _gs_options() -> dict[str, Any]:
    """Without any gcsfs waits for ever: it tells aiohttp so, whatever the session's bounds are."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S)
    return {"requests_timeout": timeout}


def _abfs_options() -> dict[str, Any]:
    """Of what carries data; for its other requests adlfs leaves Azure's client its 20 and 60 s."""
    return {"connection_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S}


_OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "s3": _s3_options,
    "gs": _gs_options,
    "abfs": _abfs_options,
}
"""What makes each client, by the extra that installs it, give a silent server up."""


def object_filesystem(scheme: str, setting: str = "storage", account: str = "") -> Any:
    """Return the fsspec file system of an object store: one for each process.

    Nothing is cached between calls: another process may have written meanwhile. Credentials,
    regions and endpoints come from the client's own environment variables and files.

    Args:
        scheme: A key of `raysae.storage.uris.EXTRAS`.
        setting: The setting that names the store, for messages.
        account: Azure's storage account; the client's environment names it if empty.

    Raises:
        SettingsError: Its client is not installed, or finds no credentials.
    """
    return _filesystem_of(os.getpid(), scheme, setting, account)


@lru_cache(maxsize=16)
def _filesystem_of(pid: int, scheme: str, setting: str, account: str) -> Any:  # noqa: ARG001
    """Open a client; a process that was forked cannot use its parent's, whose thread it lacks."""
    for chatty in ("botocore", "aiobotocore"):
        # They tell where they found credentials, in every process whose log level is INFO.
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        options = _OPTIONS[EXTRAS[scheme]]()
        if account:
            options["account_name"] = account
        filesystem = fsspec.filesystem(scheme, use_listings_cache=False, **options)
    except ImportError as error:
        raise SettingsError(
            f"{setting}: {scheme}:// needs a client that is not installed ({error}); install it "
            f"with pip install 'raysae[{EXTRAS[scheme]}]' on every node."
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"{setting}: the client of {scheme}:// cannot be opened ({error}); set its environment "
            "variables on every node."
        ) from error
    if scheme == "s3":
        # How often s3fs repeats what its own client has repeated, and `retry` will repeat again.
        filesystem.retries = 2
    return filesystem
