"""Commands, options and files that the pages name."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, job_commands
from tests.scripts import run_script

COMMANDS = [
    pytest.param(job, argv, id=f"{page}-{n}")
    for page in PAGES
    for n, (job, argv) in enumerate(job_commands(page))
]
JOBS = sorted((ROOT / "jobs").glob("*.py"))
OPTIONS_OF_OTHERS = {"--working-dir", "--address", "--generate"}
"""Those of Ray's own command line."""


def test_the_pages_have_commands() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize(("job", "argv"), COMMANDS)
def test_a_command_of_a_page_is_understood(
    job: str,
    argv: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of it but the work: the settings are parsed and printed."""
    (tmp_path / "raysae").symlink_to(ROOT / "raysae")
    (tmp_path / "pairs.yaml").write_text("corpus:\n  name: generic\n")
    monkeypatch.chdir(tmp_path)
    code = run_script(ROOT / job, [*argv, "--print_config"])
    assert not code, capsys.readouterr().out
    assert capsys.readouterr().out


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Every option of any job."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        for job in JOBS:
            assert not run_script(job, ["--help"])
    return set(re.findall(r"--[a-z_]+(?:\.[a-z_0-9]+)*", written.getvalue()))


@pytest.mark.parametrize("page", PAGES)
def test_the_options_that_a_page_names_exist(page: str, options: set[str]) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]*(?:\.[a-z_0-9]+)*", PAGES[page]))
    assert named - OPTIONS_OF_OTHERS <= options


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_exist(page: str) -> None:
    """Those of the repository: with a directory, or a module beside another."""
    quoted = set(
        re.findall(r"`((?:raysae|jobs|tests|docs|benchmarks|deploy)/[\w./-]+)", PAGES[page])
    )
    missing = {name for name in quoted if not (ROOT / name).exists()}
    assert not missing
