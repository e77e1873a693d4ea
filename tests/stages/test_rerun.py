"""A job whose artifacts are all finished."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stages.chains import argv_of, contents
from tests.stages.conftest import Made
from tests.storages import path_of

JOBS = Path(__file__).parents[2] / "jobs"

WITHOUT_RAY = """
import runpy, sys
sys.modules["ray"] = None  # importing it fails
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.ray
def test_running_again_does_nothing_and_needs_no_ray(made: Made) -> None:
    chain = made.chain
    before = contents(path_of(chain.root))
    code = f"import sys; sys.argv = {[str(JOBS / 'filter.py'), *argv_of(made.settings)]!r}"
    done = subprocess.run(
        [sys.executable, "-c", code + WITHOUT_RAY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RAYSAE_RESULT "))
    result.pop("seconds")
    assert result == {
        "job": "filter",
        "artifact": str(path_of(chain.subset.directory)),
        "kind": "subsets",
        "rows": 48,
        "rejected": 0,
        "resumed": True,
        "exit_code": 0,
    }
    assert contents(path_of(chain.root)) == before
    assert f"subsets: finished before, {path_of(chain.subset.directory)}" in done.stdout
    assert f"filter: report in {path_of(chain.report.directory)}/report.html" in done.stdout


@pytest.mark.ray
def test_a_first_run_resumes_nothing(made: Made) -> None:
    assert made.result.resumed is False
