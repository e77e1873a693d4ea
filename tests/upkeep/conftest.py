"""Storages to look after: in a directory, and in a bucket of an S3 server on this machine."""

from __future__ import annotations

import pytest

from raysae.storage import Directory, open_storage


@pytest.fixture
def root(storage_uri: str) -> Directory:
    """The root of an empty storage."""
    return open_storage(storage_uri)
