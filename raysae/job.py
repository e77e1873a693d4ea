"""What every job script does around its work: settings in, one result line and an exit code out.

Exit codes: 0 done or nothing to do, 2 bad settings, 3 bad data, 1 anything else. The Ray Jobs CLI
turns every failure into 1 and prints after the job, so the last line that the job itself prints is
`RAYSAE_RESULT {json}`, for programs.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from raysae.errors import RaysaeError
from raysae.settings import parse_settings, print_settings

SettingsT = TypeVar("SettingsT")


@dataclass(frozen=True)
class JobResult:
    """What a job made.

    Attributes:
        artifact: Where it is: a directory or a file; None if nothing was to be made.
        kind: The artifact's kind, e.g. `subsets`, or `plan`.
        rows: Rows in the artifact.
        rejected: Rows of the corpus that could not be used.
        resumed: Whether finished work of an earlier run was used.
    """

    artifact: str | None
    kind: str
    rows: int
    rejected: int
    resumed: bool


def run_job(
    name: str,
    settings_class: type[SettingsT],
    work: Callable[[SettingsT], JobResult],
    description: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse settings, do the work, print the result line, and return the exit code.

    Args:
        name: The job's name in the result line: `filter`.
        settings_class: The job's settings.
        work: The job itself.
        description: What the job does, for `--help`: the script's docstring.
        argv: Arguments; the command line's by default.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    started = time.monotonic()
    result: JobResult | None = None
    try:
        with _terminable():
            arguments = sys.argv[1:] if argv is None else argv
            settings = parse_settings(settings_class, arguments, f"jobs/{name}.py", description)
            sys.stdout.write(f"{name}: settings\n")
            print_settings(settings)
            result = work(settings)
        exit_code = 0
    except RaysaeError as error:
        sys.stdout.write(f"{name}: error: {error}\n")
        exit_code = error.exit_code
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and not stop.code:
            raise  # --help
        sys.stdout.write(f"{name}: interrupted; run it again to go on from here\n")
        exit_code = 1
    except Exception:  # the result line must be printed whatever happened
        traceback.print_exc()
        exit_code = 1
    _print_result(name, result, time.monotonic() - started, exit_code)
    return exit_code


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, which `ray job stop` sends, end the work as an exception does.

    Ray does the same from the moment a job connects to it.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _print_result(name: str, result: JobResult | None, seconds: float, exit_code: int) -> None:
    """Print the machine-readable last line."""
    line = {
        "job": name,
        "artifact": result.artifact if result else None,
        "kind": result.kind if result else None,
        "rows": result.rows if result else 0,
        "rejected": result.rejected if result else 0,
        "seconds": round(seconds, 1),
        "resumed": result.resumed if result else False,
        "exit_code": exit_code,
    }
    sys.stderr.flush()
    sys.stdout.write(f"RAYSAE_RESULT {json.dumps(line)}\n")
    sys.stdout.flush()
