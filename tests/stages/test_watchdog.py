"""Processes that end because something in them does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raysae.stages._watchdog import ends_process_after, ends_process_if_stalled, watched

REPOSITORY = Path(__file__).parents[2]

SCRIPT = """
import sys, time
from raysae.stages._watchdog import watched

def items(stalled):
    for item in range(4):
        if item == stalled:
            time.sleep(600)
        yield item

for item in watched(items(int(sys.argv[1])), 1.0, 1.0):
    time.sleep(float(sys.argv[2]))
    print(item, flush=True)
"""


def ended(stalled: int, between_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(stalled), str(between_s)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_item_that_never_comes_ends_the_process_with_its_stack() -> None:
    for stalled in (0, 2):
        process = ended(stalled, 0)
        assert process.returncode == 1
        assert process.stdout.split() == [str(item) for item in range(stalled)]
        assert "Timeout" in process.stderr
        assert "in items" in process.stderr


def test_what_comes_in_time_comes_whole_and_nobody_ends_the_process_later() -> None:
    assert list(watched(iter(range(1000)), 600.0, 600.0)) == list(range(1000))
    process = ended(9, 1.5)
    assert (process.returncode, process.stdout.split()) == (0, ["0", "1", "2", "3"])


def test_an_error_ends_the_watch() -> None:
    code = """
import time
from raysae.stages._watchdog import ends_process_after
try:
    with ends_process_after(0.5):
        raise KeyError
except KeyError:
    time.sleep(1)
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
    with ends_process_after(600.0):
        pass


@pytest.mark.parametrize(("signs", "code"), [(30, 0), (31, 1)])
def test_signs_of_life_put_the_end_off(signs: int, code: int) -> None:
    """Three times as long as allowed for one; the last of them comes too late, or not at all."""
    script = f"""
import time
from raysae.stages._watchdog import ends_process_if_stalled
with ends_process_if_stalled(1.0) as going_on:
    for number in range({signs}):
        going_on()
        time.sleep(0.1 if number < 30 else 20)
time.sleep(1.5)
"""
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert process.returncode == code
    assert ("Timeout" in process.stderr) == bool(code)


def test_signs_that_follow_at_once_set_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks: list[float] = []
    monkeypatch.setattr(
        "faulthandler.dump_traceback_later", lambda seconds, **_: clocks.append(seconds)
    )
    with ends_process_if_stalled(600.0) as going_on:
        for _ in range(1000):
            going_on()
    assert clocks == [600.0]
