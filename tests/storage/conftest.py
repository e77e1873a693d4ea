"""Storages to test on: a directory, and a bucket of an S3 server on this machine.

Other packages' tests import `node_cache`, `s3_server`, `storage_uri` and `storage_root` into their
conftest.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from raysae.storage import Directory, storage_at
from raysae.storage.filesystems import object_filesystem

BUCKET = "raysae-tests"
STARTS_WITHIN_S = 60

RUNNING = "RAYSAE_TEST_S3"
"""Environment variable with the address of the tests' server while it runs."""


def free_port() -> int:
    """Return a port that nothing listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Return when a server answers."""
    end = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < end and server.poll() is None:
        try:
            urlopen(address, timeout=1).close()
        except (URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"no S3 server at {address}")


@pytest.fixture(autouse=True)
def node_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No copies of earlier tests' objects."""
    monkeypatch.setenv("RAYSAE_NODE_CACHE", str(tmp_path / "node-cache"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server with an empty bucket, which this process' clients find."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    if running := os.environ.get(RUNNING):
        yield running  # a conftest that imports this fixture has one of its own
        return
    address = f"http://127.0.0.1:{(port := free_port())}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"{address}/moto-api/", server)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(RUNNING, address)
            patch.setenv("AWS_ENDPOINT_URL", address)
            patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            object_filesystem("s3").mkdir(BUCKET)
            yield address
    finally:
        server.terminate()
        server.wait()


def make_storage_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of a new storage of the kind that a fixture's parameter names."""
    if request.param == "local":
        return str(tmp_path / "a storage ü")
    request.getfixturevalue("s3_server")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/a storage ü"


@pytest.fixture(params=["local", "s3"])
def storage_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty storage, of which nothing exists yet."""
    return make_storage_uri(request, tmp_path)


@pytest.fixture
def storage_root(storage_uri: str) -> Directory:
    """The root of an empty storage."""
    return storage_at(storage_uri)
