"""What all tests share: one Ray on this machine, and no network."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from raysae.storage import Directory, storage_at

os.environ.setdefault("HF_HUB_OFFLINE", "1")

S3_BUCKET = "raysae-tests"

# A busy machine is no failure.
settings.register_profile("raysae", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("raysae")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests on the shared Ray last: the cheap ones fail first, and a test that starts a
    Ray of its own never meets this one."""
    items.sort(key=lambda item: "shared_ray" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[None]:
    """One Ray of two cores for all stage tests: its workers start slowly, so they are kept."""
    import ray

    temporary = tempfile.mkdtemp(prefix="rs-", dir="/tmp")  # sockets need a short path
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=temporary,
        )
        try:
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random LLaVA-NeXT of 60 thousand numbers."""
    from tests.models.tiny import build_model, save_model

    return save_model(build_model(), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server with an empty bucket, which this process' clients find."""
    pytest.importorskip("s3fs")
    from tests.cluster.s3_server import s3_server as started

    with started(S3_BUCKET) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server.endpoint


def make_storage_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of a new storage of the kind that a fixture's parameter names."""
    if request.param == "local":
        return str(tmp_path / "a storage ü")
    request.getfixturevalue("s3_server")
    return f"s3://{S3_BUCKET}/{uuid.uuid4().hex}/a storage ü"


@pytest.fixture(params=["local", "s3"])
def storage_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of an empty storage, of which nothing exists yet."""
    return make_storage_uri(request, tmp_path)


@pytest.fixture
def storage_root(storage_uri: str) -> Directory:
    """The root of an empty storage."""
    return storage_at(storage_uri)
