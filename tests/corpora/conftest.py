"""Servers that stand in for S3 and for Hugging Face, and a cache directory of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from raysae.storage.filesystems import _filesystem_of, object_filesystem
from tests.corpora.hub_server import Hub, running_hub

BUCKET = "corpora"


@pytest.fixture(autouse=True)
def cache_directory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """No test sees what another learned, or what the user's own jobs did."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RAYSAE_CACHE_DIR", str(directory))
    return directory


class S3:
    """A bucket of the server, and the requests that were sent to it.

    Attributes:
        files: The client.
        requests: (operation, arguments) of every request so far.
    """

    def __init__(self, files: Any) -> None:
        self.files = files
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self.files.pipe_file(f"{BUCKET}/{key}", data)

    def operations(self) -> list[str]:
        """Return the operations since the last call."""
        operations = [operation for operation, _ in self.requests]
        self.requests.clear()
        return operations


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty bucket `corpora`, and the client that raysae uses pointed to it."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    _filesystem_of.cache_clear()
    store = S3(object_filesystem("s3", "test"))
    store.files.makedirs(BUCKET, exist_ok=True)
    send = s3fs.S3FileSystem._call_s3

    async def recorded(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        store.requests.append((method, {**options}))
        return await send(self, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", recorded)
    yield store
    store.files.rm(BUCKET, recursive=True)
    _filesystem_of.cache_clear()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A server with the data set `owner/pairs`, empty, where huggingface_hub looks."""
    from huggingface_hub import constants

    with running_hub() as server:
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
