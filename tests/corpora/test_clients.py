from __future__ import annotations

import pytest

from raysae.corpora.clients import client_errors, listing_errors, reason_of
from raysae.errors import DataError, SettingsError


def test_a_reason_is_one_line_without_signatures() -> None:
    url = "https://cdn.example/x?X-Amz-Signature=secret&y=1"
    assert reason_of(OSError(f"403 for url: '{url}' (denied)\nmore")) == (
        "403 for url: 'https://cdn.example/x?…' (denied)"
    )
    assert reason_of(ValueError()) == "ValueError"
    assert len(reason_of(ValueError("x" * 10_000))) == 300


def test_clients_errors_become_one_kind() -> None:
    with pytest.raises(OSError, match="KeyError: 'x'"), client_errors():
        raise KeyError("x")
    for error in (PermissionError("no"), FileNotFoundError("gone"), DataError("ours")):
        with pytest.raises(type(error)) as caught, client_errors():
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError("NoSuchBucket"), "does not exist (NoSuchBucket); name a corpus file"),
        (
            PermissionError("AccessDenied"),
            "cannot be listed (permission denied: AccessDenied); give",
        ),
        (RuntimeError("no route"), "cannot be listed (RuntimeError: no route); see to the network"),
    ],
)
def test_a_listing_that_fails_says_why(error: Exception, message: str) -> None:
    with pytest.raises(SettingsError) as caught, listing_errors("s3://b/x", "corpus.path"):
        raise error
    assert str(caught.value).startswith(f"corpus.path: s3://b/x {message}")
