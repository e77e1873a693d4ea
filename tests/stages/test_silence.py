from __future__ import annotations

import time

import pytest

from raysae.stages import _silence


def test_a_job_that_waits_says_so_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_silence, "SILENCE_S", 0.1)
    with _silence.told_of_silence("score"):
        time.sleep(1.0)
    lines = capsys.readouterr().out.splitlines()
    assert 2 <= len(lines) <= 10
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
