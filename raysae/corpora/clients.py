"""Errors of the stores' clients, as sentences: they raise many classes, each its own.

Requests are repeated by the clients themselves (s3fs, gcsfs, adlfs, huggingface_hub), with pauses
that grow; what arrives here is final.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from raysae.errors import RaysaeError, SettingsError

MAX_REASON_LETTERS = 300


def reason_of(error: BaseException) -> str:
    """Return one line that says what happened, without the queries of URLs: they may be signed."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return re.sub(r"(https?://[^\s?]+)\?[^\s')]*", r"\1?…", line)[:MAX_REASON_LETTERS]


@contextmanager
def client_errors() -> Iterator[None]:
    """Turn whatever a store's client raises into an OSError; raysae's own errors pass."""
    try:
        yield
    except (RaysaeError, OSError, MemoryError):
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {reason_of(error)}") from error


@contextmanager
def listing_errors(place: object, setting: str) -> Iterator[None]:
    """Say in one sentence why a store cannot be listed.

    Args:
        place: What is listed.
        setting: The setting that names it.

    Raises:
        SettingsError: It is missing, denied or unreachable.
    """
    try:
        with client_errors():
            yield
    except FileNotFoundError as error:
        raise SettingsError(
            f"{setting}: {place} does not exist ({reason_of(error)}); name a corpus file or the "
            "prefix of some."
        ) from error
    except PermissionError as error:
        raise SettingsError(
            f"{setting}: {place} cannot be listed (permission denied: {reason_of(error)}); give "
            "the job credentials that may list and read it."
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{setting}: {place} cannot be listed ({reason_of(error)}); see to the network, the "
            "client's settings and its credentials."
        ) from error
