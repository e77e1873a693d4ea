from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import DataError, RaysaeError, SettingsError
from raysae.job import JobResult, run_job

JOBS = Path(__file__).parents[1] / "jobs"
KEYS = ["job", "artifact", "kind", "rows", "rejected", "seconds", "resumed", "exit_code"]
MADE = JobResult("/s/things/1", "things", 5, 2, resumed=True)


@dataclass(frozen=True)
class Settings:
    """Settings.

    Args:
        k: How many.
    """

    k: int = 3


def result_of(output: str) -> dict[str, Any]:
    """Return the result line, which must be the last one."""
    assert output.endswith("\n")
    marker, _, content = output.splitlines()[-1].partition(" ")
    assert marker == "RAYSAE_RESULT"
    assert output.count("RAYSAE_RESULT") == 1
    result = json.loads(content)
    assert list(result) == KEYS
    return result


def run(work: Callable[[Settings], JobResult], *argv: str) -> int:
    return run_job("demo", Settings, work, "Does things.", argv)


def raising(error: BaseException) -> Callable[[Settings], JobResult]:
    def work(_: Settings) -> JobResult:
        raise error

    return work


def test_done(capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    assert run(lambda settings: (seen.append(settings), MADE)[1], "--k", "4") == 0
    assert seen == [Settings(4)]
    output = capsys.readouterr().out
    assert output.startswith("demo: settings\n  k: 4\n")
    result = result_of(output)
    assert isinstance(result.pop("seconds"), float)
    assert result == {
        "job": "demo",
        "artifact": "/s/things/1",
        "kind": "things",
        "rows": 5,
        "rejected": 2,
        "resumed": True,
        "exit_code": 0,
    }


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (SettingsError("sae.k is 0."), 2),
        (DataError("no row."), 3),
        (RaysaeError("something else."), 1),
    ],
)
def test_an_expected_error_is_one_line_without_a_traceback(
    error: RaysaeError, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error)) == exit_code
    captured = capsys.readouterr()
    assert captured.err == ""
    assert f"\ndemo: error: {error}\n" in captured.out
    assert "Traceback" not in captured.out
    result = result_of(captured.out)
    assert result["exit_code"] == exit_code
    assert result["artifact"] is None
    assert result["kind"] is None
    assert (result["rows"], result["rejected"], result["resumed"]) == (0, 0, False)


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(ZeroDivisionError("oops"))) == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert "ZeroDivisionError: oops" in captured.err
    assert result_of(captured.out)["exit_code"] == 1


def test_an_interrupt_says_that_the_job_can_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(KeyboardInterrupt())) == 1
    captured = capsys.readouterr()
    assert "run it again to go on" in captured.out
    assert "Traceback" not in captured.err
    assert result_of(captured.out)["exit_code"] == 1


@pytest.mark.parametrize("stop", [SystemExit(15), SystemExit(143)], ids=["ray", "ours"])
def test_a_stopped_job_prints_its_result_line(
    stop: SystemExit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(stop)) == 1
    assert result_of(capsys.readouterr().out)["exit_code"] == 1


def test_sigterm_ends_the_work_as_an_exception_does(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []

    def work(_: Settings) -> JobResult:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigtimedwait([], 60)  # the handler interrupts it
        finally:
            cleaned.append(True)
        return MADE

    before = signal.getsignal(signal.SIGTERM)
    assert run(work) == 1
    assert cleaned == [True]
    assert result_of(capsys.readouterr().out)["exit_code"] == 1
    assert signal.getsignal(signal.SIGTERM) == before


def test_help_is_no_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(raising(AssertionError("worked")), "--help")
    assert stopped.value.code == 0
    assert "RAYSAE_RESULT" not in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--k", "many"], ["--nope"], ["--k"]])
def test_bad_arguments_end_before_any_work(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(AssertionError("worked")), *argv) == 2
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("demo: error: settings: ")
    assert result_of(captured.out)["exit_code"] == 2


@pytest.mark.parametrize("name", sorted(path.stem for path in JOBS.glob("*.py")))
def test_every_job_is_thin_executable_and_ends_with_its_exit_code(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = JOBS / f"{name}.py"
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env python\n")
    assert os.access(script, os.X_OK)
    assert len(text.splitlines()) <= 40
    monkeypatch.setattr(sys, "argv", [str(script), "--sae.k", "0"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    assert stopped.value.code == 2
    assert result_of(capsys.readouterr().out)["job"] == name


def test_as_a_process_the_result_is_the_last_line_of_all_output() -> None:
    done = subprocess.run(
        [sys.executable, str(JOBS / "filter.py"), "--storage", "ftp://host/x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stdout
    assert "filter: error: storage: 'ftp://host/x'" in done.stdout
    assert result_of(done.stdout)["exit_code"] == 2
