from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from raysae.errors import SettingsError
from raysae.storage import filesystems, storage_at
from raysae.storage.filesystems import object_filesystem


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What fsspec was asked for, in order."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def filesystem(scheme: str, **options: Any) -> object:
        calls.append((scheme, options))
        return SimpleNamespace()

    monkeypatch.setattr(fsspec, "filesystem", filesystem)
    filesystems._filesystem_of.cache_clear()
    yield calls
    filesystems._filesystem_of.cache_clear()


def test_there_is_one_client_for_a_process_and_nothing_is_cached_in_it(opened: list[Any]) -> None:
    assert object_filesystem("s3") is object_filesystem("s3")
    assert object_filesystem("gs") is not object_filesystem("s3")
    assert [scheme for scheme, _ in opened] == ["s3", "gs"]
    assert all(options["use_listings_cache"] is False for _, options in opened)
    assert opened[0][1]["config_kwargs"]["read_timeout"] == filesystems.READ_TIMEOUT_S


def test_the_account_of_a_uri_reaches_the_client(opened: list[Any]) -> None:
    for uri in ("abfs://box@me.dfs.core.windows.net/a", "abfs://box/a"):
        assert storage_at(uri).backend._fs
    assert [options.get("account_name") for _, options in opened] == ["me", None]


def test_a_forked_process_opens_a_client_of_its_own(
    opened: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = object_filesystem("s3")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert object_filesystem("s3") is not parents


def test_a_client_that_is_not_installed_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def filesystem(scheme: str, **options: Any) -> object:
        raise ImportError("Install gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", filesystem)
    filesystems._filesystem_of.cache_clear()
    with pytest.raises(SettingsError, match=r"^corpus: gcs://.*pip install 'raysae\[gs\]'"):
        object_filesystem("gcs", "corpus")


def test_a_client_without_credentials_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """adlfs says so when it is opened."""

    def filesystem(scheme: str, **options: Any) -> object:
        raise ValueError("Must provide either a connection_string or account_name")

    monkeypatch.setattr(fsspec, "filesystem", filesystem)
    filesystems._filesystem_of.cache_clear()
    with pytest.raises(SettingsError, match=r"^storage: .*abfs:// .*Must provide .*environment"):
        storage_at("abfs://box/a")
