"""Storages and score tables on this machine and in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysae.artifacts import ScoreTable
from tests.artifacts.scores import unsynced
from tests.counted_s3 import CountedS3
from tests.storage.conftest import node_cache

__all__ = ["node_cache"]


@pytest.fixture
def table(tmp_path: Path) -> ScoreTable:
    return ScoreTable(unsynced(tmp_path / "storage"))


@pytest.fixture
def bucket_table(counting_s3: CountedS3, request: pytest.FixtureRequest) -> ScoreTable:
    """A table of its own in the bucket."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    return ScoreTable(counting_s3.root(f"{request.node.path.stem}/{name}"))
