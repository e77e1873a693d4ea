"""Jobs whose storage denies them something are told before anything runs, without any Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.run_local import REPOSITORY, RESULT
from tests.cluster.s3_faults import WRITES, Fault, Kind, Rule
from tests.cluster.s3_proxy import Proxy, s3_proxy
from tests.cluster.s3_server import S3
from tests.cluster.settings import options
from tests.cluster.small_disk import small_disk
from tests.conftest import S3_BUCKET

MIB = 1 << 20


@pytest.fixture
def proxy(s3_server) -> Iterator[Proxy]:
    with s3_proxy(s3_server) as proxy:
        yield proxy


def run_script(storage: str, model: Path, environment: Mapping[str, str], *more: str) -> list[str]:
    """Run the main job's script to its end; return its lines."""
    ended = subprocess.run(
        [sys.executable, "jobs/filter.py", *options(storage, model), *more],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert json.loads(RESULT.match(lines[-1])[1])["exit_code"] == ended.returncode
    return lines


def errors(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("filter: error: ")]


@pytest.mark.parametrize("kinds", [WRITES, (Kind.LIST,), (Kind.GET,)], ids=["put", "list", "get"])
def test_a_store_that_denies_what_a_job_needs_is_refused(proxy, tiny_model, kinds):
    proxy.use(Rule(Fault.DENY, kinds))
    storage = f"s3://{S3_BUCKET}/{uuid.uuid4().hex}"
    lines = run_script(storage, tiny_model, S3(proxy.endpoint, S3_BUCKET).environment)
    assert json.loads(RESULT.match(lines[-1])[1])["exit_code"] == 2
    (error,) = errors(lines)
    assert error.startswith(f"filter: error: storage: {storage} cannot hold artifacts: ")
    assert "denied" in error


def test_a_disk_that_can_only_be_read_is_refused(tiny_model):
    with small_disk(MIB) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        lines = run_script(str(disk / "storage"), tiny_model, {})
    assert json.loads(RESULT.match(lines[-1])[1])["exit_code"] == 2
    (error,) = errors(lines)
    assert "Read-only file system" in error
