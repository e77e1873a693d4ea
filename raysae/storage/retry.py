"""Requests to an object store, repeated while that can help, and its errors as one sentence."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from raysae.errors import StorageError

Result = TypeVar("Result")

ATTEMPTS = 8
"""How often a request is sent at most, beside the client's own few repetitions."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
"""Pauses double; with random lengths, so that many actors do not come back at the same moment."""

FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, StorageError)
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
        except PermissionError as error:
            raise StorageError(
                f"storage: {what}: denied ({_reason(error)}); allow it to this job's credentials "
                "and run again."
            ) from error
        except FINAL:
            raise
        except Exception as error:
            if type(error).__name__ in _NO_CREDENTIALS:
                raise StorageError(
                    f"storage: {what}: there are no credentials ({_reason(error)}); set them in "
                    "the environment of every node and run again."
                ) from error
            if not may_pass(error) or attempt == ATTEMPTS - 1:
                raise StorageError(
                    f"storage: {what} ({_reason(error)}, {attempt + 1} times); check the store and "
                    "run again: what is finished is kept."
                ) from error
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)
        time.sleep(longest * random.uniform(0.5, 1))
    raise AssertionError("unreachable")


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
