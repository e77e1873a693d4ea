"""One small chain, made once and looked at by many tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from raysae.pipeline import make
from raysae.stages.chain import Chain, ChainSettings
from raysae.stages.result import StageResult
from tests.stages.chains import small_settings


@dataclass(frozen=True)
class Made:
    """A chain whose artifacts, the report included, are finished."""

    settings: ChainSettings
    result: StageResult

    @property
    def chain(self) -> Chain:
        """The chain, opened afresh."""
        return Chain(self.settings)


@pytest.fixture(scope="session")
def made(shared_ray: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    settings = small_settings(tmp_path_factory.mktemp("chain") / "storage", tiny_model)
    result = make(Chain(settings), "reports")
    assert result is not None
    return Made(settings, result)
