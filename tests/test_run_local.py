from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

STOPPED_WHILE_A_HEAD_RUNS = """
import os, signal, sys
from contextlib import contextmanager
from deploy import run_local

@contextmanager
def head():
    try:
        yield
    finally:
        print("the head is ended", flush=True)

def submit(head, argv):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

run_local.local_head, run_local.submit = head, submit
sys.exit(run_local.main(["jobs/x.py"]))
"""


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="needs POSIX signals")
def test_sigterm_ends_what_was_started() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_WHILE_A_HEAD_RUNS],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "the head is ended\n"
    assert done.returncode == 128 + signal.SIGTERM
