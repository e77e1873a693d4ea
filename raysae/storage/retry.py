"""Requests to an object store, repeated while that can help, and its errors as one sentence."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from raysae.errors import RaysaeError, StorageError

Result = TypeVar("Result")

ATTEMPTS = 8
"""How often a client is asked at most; each time it sends a request itself up to 4 times (s3fs,
adlfs) or 6 times (gcsfs), with pauses of up to 1.5 minutes in all."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
"""Pauses double; with random lengths, so that many actors do not come back at the same moment."""

FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError, RaysaeError)
"""Answers, not failures: asking again would not change them."""

_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure", "asyncio", "builtins")
_NO_CREDENTIALS = ("NoCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError")


def retrying(what: str, call: Callable[[], Result]) -> Result:
    """Call until it succeeds, `ATTEMPTS` times at most.

    Args:
        what: The object's URI and what is done to it, for the message: `s3://b/k cannot be read`.
        call: Sends the request; sending it twice must do no harm.

    Raises:
        FileNotFoundError, FileExistsError: As the client raised it.
        StorageError: It was denied, or it failed every time.
    """
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except FINAL:
            raise
        except Exception as error:
            _raise_answer(what, error)
            if not may_pass(error):
                raise StorageError(
                    f"storage: {what} ({_reason(error)}); check the store and run again."
                ) from error
            if attempt == ATTEMPTS - 1:
                raise StorageError(
                    f"storage: {what} ({_reason(error)}, {ATTEMPTS} times); check the store and "
                    "run again: what is finished is kept."
                ) from error
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
        time.sleep(longest * random.uniform(0.5, 1))
    raise AssertionError("unreachable")


def _raise_answer(what: str, error: Exception) -> None:
    """Raise what an error means if it is an answer of the store's, in its client's own words."""
    if type(error).__name__ in _NO_CREDENTIALS:
        raise StorageError(
            f"storage: {what}: there are no credentials ({_reason(error)}); set them in the "
            "environment of every node and run again."
        ) from error
    status = _status(error)
    if isinstance(error, PermissionError) or status in {401, 403}:
        raise StorageError(
            f"storage: {what}: denied ({_reason(error)}); allow it to this job's credentials and "
            "run again."
        ) from error
    if status == 404:
        raise FileNotFoundError(_reason(error)) from error
    if status == 412:
        raise FileExistsError(_reason(error)) from error


def _status(error: Exception) -> int | None:
    """Return the HTTP status that made a client raise an error, if it is to be found.

    s3fs raises a plain OSError for 412 where the store does not repeat the condition (MinIO),
    gcsfs one for 403, and adlfs hands on what Azure's library raises.
    """
    if isinstance(error, OSError) and str(error).startswith("Forbidden: "):
        return 403
    response = getattr(error.__cause__, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status_code", getattr(error, "code", None))
    return status if isinstance(status, int) else None


def may_pass(error: Exception) -> bool:
    """Whether an error may be gone at the next try: of the network or of the store's servers."""
    if isinstance(error, (ValueError, TypeError, KeyError, AttributeError, NotImplementedError)):
        return False
    root = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or root in _CLIENTS or "fsspec" in type(error).__module__


def _reason(error: Exception) -> str:
    """Return an error's own words, without line breaks."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words.rstrip(".")
