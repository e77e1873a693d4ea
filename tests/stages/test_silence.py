from __future__ import annotations

import time

import pytest
from ray.data._internal.execution.streaming_executor_state import IdleDetector

from raysae.stages import _silence


def test_a_job_that_waits_says_so_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_silence, "SILENCE_S", 0.1)
    started = time.monotonic()
    with _silence.told_of_silence("score"):
        time.sleep(1.0)
    lines = capsys.readouterr().out.splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - started) / 0.1
    assert all(line.startswith("score: no shard was finished for 0 minutes") for line in lines)


def test_a_job_that_goes_on_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_silence, "SILENCE_S", 5.0)
    with _silence.told_of_silence("score") as heard:
        for _ in range(3):
            time.sleep(0.2)
            heard()
    assert capsys.readouterr().out == ""


def test_ray_datas_word_on_sources_that_wait_is_dropped(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And comes again afterwards: another user of Ray Data may want it."""
    monkeypatch.setattr(IdleDetector, "_warn_printed", False)
    logged = _silence._RAY_DATA_LOG
    monkeypatch.setattr(logged, "propagate", False)
    monkeypatch.setattr(logged, "handlers", [caplog.handler])
    with _silence.told_of_silence("score"):
        IdleDetector.print_warning_if_idle_for_too_long("Read", 100.0)  # type: ignore[arg-type]
        logged.warning("Something else.")
    IdleDetector._warn_printed = False
    IdleDetector.print_warning_if_idle_for_too_long("Map", 100.0)  # type: ignore[arg-type]
    texts = [record.getMessage() for record in caplog.records]
    assert [text.split(" is running")[0] for text in texts] == ["Something else.", "Operator Map"]
