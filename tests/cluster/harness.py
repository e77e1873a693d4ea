"""Starts jobs through the Ray Jobs CLI, kills chosen processes at chosen moments, and waits.

Only processes that a head started are ever looked at: descendants of its pid, told apart by their
command lines. Nothing here asserts a time; the limits only end a test that hangs.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy.run_local import REPOSITORY, RESULT, Head

ACTOR = "ray::MapWorker"
READER = "ray::Map(_read_shard)"
TRAIN_RANK = "ray::RayTrainWorker"
DRIVER = re.compile(r"python\S* \S*jobs/\w+\.py")
"""How the processes of a job are named: a pool's actor, a process while it reads a shard, a
training rank, the job's own script."""

GENEROUS_S = 900.0
"""Longer than anything takes on a busy machine."""

POLL_S = 0.002


@dataclass(frozen=True)
class Ended:
    """A job that is over.

    Attributes:
        client: Exit code of `ray job submit`.
        result: What stands in its `RAYSAE_RESULT` line; None when it was killed before that.
        output: All that it printed.
    """

    client: int
    result: dict[str, Any] | None
    output: str

    @property
    def exit_code(self) -> int | None:
        """The job's own exit code, as its result line has it."""
        return None if self.result is None else self.result["exit_code"]


class Job:
    """A job submitted through the Ray Jobs CLI, which runs as a child of this process.

    Args:
        head: Where it is submitted.
        argv: Script and options, as after `--` of `ray job submit`.
        log: File for its output.
        options: Options of `ray job submit` itself.
        cwd: Where the client runs.
    """

    def __init__(
        self,
        head: Head,
        argv: Sequence[str],
        log: Path,
        options: Sequence[str] = (),
        cwd: Path = REPOSITORY,
    ) -> None:
        self.head = head
        self.log = log
        self.submission = f"test-{uuid.uuid4().hex}"
        command = [
            *(str(Path(sys.executable).with_name("ray")), "job", "submit"),
            *("--address", head.dashboard, "--submission-id", self.submission),
            *(*options, "--", *argv),
        ]
        with log.open("wb") as output:
            self.client = subprocess.Popen(
                command, cwd=cwd, env=head.environment, stdout=output, stderr=subprocess.STDOUT
            )

    def wait(self) -> Ended:
        """Wait until the job is over."""
        try:
            code = self.client.wait(GENEROUS_S)
        except subprocess.TimeoutExpired:
            self.client.kill()
            self.client.wait()
            raise AssertionError(f"the job did not end:\n{self._tail()}") from None
        output = self.log.read_text(errors="replace")
        # Of a failed job the client repeats the last lines.
        found = {match[1] for match in map(RESULT.match, output.splitlines()) if match}
        assert len(found) <= 1, f"result lines that differ:\n{self._tail()}"
        return Ended(code, json.loads(found.pop()) if found else None, output)

    def wait_until(self, reached: Callable[[], Any], what: str) -> Any:
        """Wait until `reached()` is true, and return its value, while the job is running."""
        deadline = time.monotonic() + GENEROUS_S
        while time.monotonic() < deadline:
            value = reached()
            if value:
                return value
            if self.client.poll() is not None:
                raise AssertionError(f"the job ended before {what}:\n{self._tail()}")
            time.sleep(POLL_S)
        raise AssertionError(f"no {what}:\n{self._tail()}")

    def process(self, name: str) -> psutil.Process:
        """Wait for this head's process of that name, and return the oldest one."""
        found = self.wait_until(
            lambda: processes(self.head.process.pid, name), f"a process named {name}"
        )
        return min(found, key=lambda process: process.create_time())

    def driver(self) -> psutil.Process:
        """Wait for the job's own script, and return its process."""
        self.wait_until(lambda: "Running entrypoint" in self.log.read_text(), "its start")
        (process,) = self.wait_until(self.drivers, "its driver")
        return process

    def drivers(self) -> list[psutil.Process]:
        """Return the process of the job's own script, if it runs now."""
        drivers = processes(self.head.process.pid, DRIVER)
        return [process for process in drivers if self.submission in _job_config(process)]

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


def run_job(
    head: Head,
    argv: Sequence[str],
    log: Path,
    options: Sequence[str] = (),
    cwd: Path = REPOSITORY,
) -> Ended:
    """Submit a job and wait until it is over."""
    return Job(head, argv, log, options, cwd).wait()


def processes(root: int, name: str | re.Pattern[str]) -> list[psutil.Process]:
    """Return the descendants of a process whose command line begins with `name`."""
    pattern = re.compile(re.escape(name)) if isinstance(name, str) else name
    found = []
    for process in descendants(root):
        try:
            if pattern.match(" ".join(process.cmdline())):
                found.append(process)
        except psutil.Error:
            continue
    return found


def descendants(root: int) -> list[psutil.Process]:
    """Return all processes below one."""
    try:
        return psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(process: psutil.Process) -> None:
    """End a process with no chance to clean up, as a lost machine would, and see it gone."""
    process.kill()
    wait_for(lambda: not _alive(process), f"the end of {process}")


def wait_for(reached: Callable[[], Any], what: str, limit_s: float = 300.0) -> None:
    """Wait until `reached()` is true."""
    deadline = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def wait_until_idle(root: int) -> None:
    """Wait until no job's process is left below a head: no driver, no actor, no rank."""

    def left() -> list[psutil.Process]:
        names = (ACTOR, TRAIN_RANK, "ray::TrainController", DRIVER)
        return [process for name in names for process in processes(root, name)]

    wait_for(lambda: not left(), "the end of the jobs' processes")


def assert_one_clear_sentence(ended: Ended, said: str) -> None:
    """See that a job failed with one sentence, and told nothing of what its processes did."""
    assert (ended.client, ended.exit_code) == (1, 1), ended.output[-6000:]
    # Of a failed job the client repeats the last lines.
    errors = {line for line in ended.output.splitlines() if ": error: " in line}
    assert len(errors) == 1, ended.output[-6000:]
    assert re.fullmatch(rf"\w+: error: {said}", errors.pop()), ended.output[-6000:]
    assert "Traceback" not in ended.output, ended.output


def alive(pids: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return those processes that still run (a pid that another process has now is not one)."""
    return [process for process in pids if _alive(process)]


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _job_config(process: psutil.Process) -> str:
    """Return what Ray tells a driver of its job; it names the submission."""
    try:
        return process.environ().get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
    except psutil.Error:
        return ""
