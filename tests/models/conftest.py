"""The tiny vision-language models, saved once per session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raysae.models import HiddenStateModel
from tests.models.families import BUILDERS, Family, make_family


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    return {name: make_family(name, tmp_path_factory.mktemp(name)) for name in BUILDERS}


@pytest.fixture(params=BUILDERS)
def family(request: pytest.FixtureRequest, families: dict[str, Family]) -> Family:
    """Each architecture in turn."""
    return families[request.param]


@pytest.fixture(scope="session")
def llava_next(families: dict[str, Family]) -> Family:
    return families["llava_next"]


@pytest.fixture(scope="session")
def whole_model(llava_next: Family) -> Any:
    return llava_next.whole_model


@pytest.fixture(scope="session")
def model_directories(llava_next: Family) -> dict[str, Path]:
    return llava_next.directories


@pytest.fixture(scope="session")
def model_directory(model_directories: dict[str, Path]) -> Path:
    return model_directories["published"]


@pytest.fixture(scope="session")
def tiny(llava_next: Family) -> HiddenStateModel:
    return llava_next.load()
