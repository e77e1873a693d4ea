"""Job scripts, run in this process as Python runs them."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def run_script(job: Path, argv: Sequence[str]) -> int | str | None:
    """Run a job's script with these options, and return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(job), *argv])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(job), run_name="__main__")
    return ended.value.code
