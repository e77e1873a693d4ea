"""Storages to look after: in a directory, and in a bucket of an S3 server on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from raysae.storage import Directory, open_storage
from raysae.upkeep import collect
from raysae.upkeep.clock import StorageClock, storage_clock


@pytest.fixture
def root(storage_uri: str) -> Directory:
    """The root of an empty storage."""
    return open_storage(storage_uri)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the storage's clock be so many seconds ahead from now on: in a bucket, too."""

    def ahead(seconds: float) -> None:
        def clock(root: Directory, limit: float) -> StorageClock:
            found = storage_clock(root, limit)
            return replace(found, looked=found.looked + seconds)

        monkeypatch.setattr(collect, "storage_clock", clock)

    return ahead
