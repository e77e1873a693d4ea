from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import fsspec
import fsspec.asyn
import pytest

from raysae.errors import SettingsError
from raysae.storage import filesystems, storage_at
from raysae.storage.filesystems import object_filesystem
from raysae.storage.uris import EXTRAS


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


def test_each_client_gives_a_silent_server_up(opened: list[Any]) -> None:
    for scheme in EXTRAS:
        object_filesystem(scheme)
    found = dict(opened)
    bounds = (filesystems.CONNECT_TIMEOUT_S, filesystems.READ_TIMEOUT_S)
    config = found["s3"]["config_kwargs"]
    assert (config["connect_timeout"], config["read_timeout"]) == bounds
    for scheme in ("gs", "gcs"):
        timeout = found[scheme]["requests_timeout"]
        assert (timeout.sock_connect, timeout.sock_read, timeout.total) == (*bounds, None)
    for scheme in ("abfs", "abfss", "az"):
        assert (found[scheme]["connection_timeout"], found[scheme]["read_timeout"]) == bounds


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("write", [False, True])
def test_a_silent_s3_is_given_up(
    silent_server: str, monkeypatch: pytest.MonkeyPatch, write: bool
) -> None:
    monkeypatch.setattr(filesystems, "READ_TIMEOUT_S", 0.1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", silent_server)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    filesystems._filesystem_of.cache_clear()
    client = object_filesystem("s3")
    with pytest.raises(OSError, match="Read timeout"):
        # The last argument only keeps a failing test from hanging.
        fsspec.asyn.sync(client.loop, *_request(client, write), timeout=30)
    filesystems._filesystem_of.cache_clear()


def _request(client: Any, write: bool) -> tuple[Any, ...]:
    return (client._pipe_file, "b/k", b"x") if write else (client._cat_file, "b/k")


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
