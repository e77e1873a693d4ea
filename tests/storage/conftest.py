"""Copies of objects are kept apart by test; see tests/conftest.py for the storages themselves."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def node_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No copies of earlier tests' objects."""
    monkeypatch.setenv("RAYSAE_NODE_CACHE", str(tmp_path / "node-cache"))
