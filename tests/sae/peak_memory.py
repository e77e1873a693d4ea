"""The peak memory of a process of its own, for measurements in a child."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def peak_bytes() -> int:
    """Most memory that this process has held since it began.

    Not `ru_maxrss`: a child starts with what its parent held when it forked.
    """
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def run_alone(script: str, *arguments: str) -> list[int]:
    """Run a script in a fresh interpreter and return the numbers that it prints."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return [int(word) for word in done.stdout.split()]
