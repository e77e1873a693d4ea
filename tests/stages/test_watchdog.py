"""Processes that end because something in them does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raysae.stages._watchdog import ends_process_after, watched

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
