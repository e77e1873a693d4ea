from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest

from raysae.errors import SettingsError, StorageError
from raysae.storage import retry
from raysae.storage.retry import ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S, may_pass, retrying


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, none of which took time."""
    made: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", made.append)
    return made


def failing(times: int, error: Exception) -> Callable[[], str]:
    """A request that fails some times and then succeeds."""
    left = [error] * times

    def call() -> str:
        if left:
            raise left.pop()
        return "answer"

    return call


def client_error(module: str, name: str = "ClientError", **about: Any) -> Exception:
    """An error as a client's package raises it."""
    kind = type(name, (Exception,), {"__module__": module, **about})
    error: Exception = kind("the words\nof the client.")
    return error


def boto_error(status: int, words: str = "no") -> OSError:
    """An error as s3fs makes it of botocore's."""
    response = {"ResponseMetadata": {"HTTPStatusCode": status}, "Error": {"Code": "X"}}
    error = OSError(errno.EIO, words)
    error.__cause__ = client_error("botocore.exceptions", response=response)
    return error


PASSING = [
    OSError("connection reset"),
    TimeoutError(),
    ConnectionResetError(),
    OSError(errno.EBUSY, "Please reduce your request rate."),
    client_error("botocore.exceptions", "EndpointConnectionError"),
    client_error("aiohttp.client_exceptions", "ServerDisconnectedError"),
    client_error("gcsfs.retry", "HttpError", code=503),
    client_error("azure.core.exceptions", "ServiceRequestError"),
    client_error("azure.core.exceptions", "HttpResponseError", status_code=500),
    client_error("fsspec.exceptions", "FSTimeoutError"),
    boto_error(500),
    boto_error(400),
    boto_error(409),
]
LASTING = [ValueError("x"), TypeError("x"), KeyError("x"), client_error("mine", "Error")]
DENIED = [
    PermissionError("Access Denied"),
    client_error("azure.core.exceptions", "HttpResponseError", status_code=403),
    client_error("azure.core.exceptions", "ClientAuthenticationError", status_code=401),
    client_error("gcsfs.retry", "HttpError", code=401),
    OSError("Forbidden: b/bucket/o\nno access"),
    boto_error(403),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_again(pauses: list[float], error: Exception) -> None:
    assert may_pass(error)
    assert retrying("x cannot be read", failing(ATTEMPTS - 1, error)) == "answer"
    assert len(pauses) == ATTEMPTS - 1


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_does_not_pass_ends_in_one_sentence(pauses: list[float], error: Exception) -> None:
    with pytest.raises(
        StorageError, match=r"^storage: s3://b/k cannot be read \(.*8 times\)"
    ) as at:
        retrying("s3://b/k cannot be read", failing(ATTEMPTS, error))
    assert at.value.__cause__ is error
    assert "\n" not in str(at.value)
    assert len(pauses) == ATTEMPTS - 1


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_other_errors_are_not_repeated(pauses: list[float], error: Exception) -> None:
    assert not may_pass(error)
    with pytest.raises(StorageError, match="x cannot be read") as at:
        retrying("x cannot be read", failing(1, error))
    assert "times" not in str(at.value)
    assert pauses == []


@pytest.mark.parametrize("error", DENIED, ids=repr)
def test_what_is_denied_is_not_asked_again(pauses: list[float], error: Exception) -> None:
    with pytest.raises(StorageError, match=r"x cannot be read: denied \(.*\); allow it"):
        retrying("x cannot be read", failing(1, error))
    assert pauses == []


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("x"),
        client_error("azure.core.exceptions", "ResourceNotFoundError", status_code=404),
        boto_error(404),
    ],
    ids=repr,
)
def test_what_is_not_there_is_an_answer(pauses: list[float], error: Exception) -> None:
    with pytest.raises(FileNotFoundError):
        retrying("x cannot be read", failing(1, error))
    assert pauses == []


@pytest.mark.parametrize(
    "error",
    [
        FileExistsError("x"),
        # MinIO and others do not say which condition was not met, so s3fs makes no more of it.
        boto_error(412, "At least one of the pre-conditions you specified did not hold"),
    ],
    ids=repr,
)
def test_what_is_taken_is_an_answer(pauses: list[float], error: Exception) -> None:
    with pytest.raises(FileExistsError):
        retrying("x cannot be created", failing(1, error))
    assert pauses == []


@pytest.mark.parametrize(
    "error", [StorageError("storage: full."), SettingsError("x"), IsADirectoryError("x")]
)
def test_answers_stay_as_they_are(pauses: list[float], error: Exception) -> None:
    with pytest.raises(type(error)) as at:
        retrying("x cannot be read", failing(1, error))
    assert at.value is error
    assert pauses == []


@pytest.mark.parametrize("name", ["NoCredentialsError", "DefaultCredentialsError"])
def test_missing_credentials_are_named(pauses: list[float], name: str) -> None:
    with pytest.raises(StorageError, match=r"there are no credentials .*environment"):
        retrying("x cannot be read", failing(1, client_error("botocore.exceptions", name)))
    assert pauses == []


def test_an_interrupt_is_not_held_up(pauses: list[float]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrying("x", stop)
    assert pauses == []


def test_pauses_double_up_to_a_bound_with_random_lengths(pauses: list[float]) -> None:
    retrying("x", failing(ATTEMPTS - 1, OSError()))
    for number, pause in enumerate(pauses):
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == len(pauses)
