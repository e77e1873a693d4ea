"""What all tests share: one Ray on this machine, and no network."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from raysae.storage import Directory, storage_at

if TYPE_CHECKING:
    from tests.counted_s3 import CountedS3

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
        try:
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                log_to_driver=False,
                _temp_dir=temporary,
            )
            yield
        finally:
            ray.shutdown()
            shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(autouse=True)
def no_ray_of_its_own(request: pytest.FixtureRequest) -> Iterator[None]:
    """See that no test leaves a Ray behind that the tests on the shared one would meet."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and "shared_ray" not in request.fixturenames and ray.is_initialized():
        ray.shutdown()
        pytest.fail("this test connected to Ray without the fixture shared_ray")


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


@pytest.fixture(scope="session")
def counting_s3() -> Iterator[CountedS3]:
    """An S3 in this process that counts the requests: one, because moto's content is global."""
    from tests.counted_s3 import counted_s3

    with counted_s3() as server:
        yield server


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
