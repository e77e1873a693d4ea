"""Storages to look after: a directory, and a bucket of an S3 server on this machine."""

from __future__ import annotations

import pytest

from raysae.storage import Directory, open_storage
from tests.storage.conftest import node_cache, s3_server, storage_uri

__all__ = ["node_cache", "root", "s3_server", "storage_uri"]


@pytest.fixture
def root(storage_uri: str) -> Directory:
    """The root of an empty storage, in a directory and in a bucket."""
    return open_storage(storage_uri)
