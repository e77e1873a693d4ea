"""Run a job on a Ray head of its own on this machine: start it, submit, stream, end it again.

The job goes through the real Ray Jobs CLI, as it does on a cluster. The head has its own ports, its
own short temporary directory and a token, so that it disturbs no other Ray and no one else can
submit to it; exactly the processes started here are ended.

    python deploy/run_local.py jobs/filter.py [the job's own options]
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
API_SERVER = "RAY_API_SERVER_ADDRESS"
"""The variable that tells Ray's own clients which head is theirs."""

RESULT = re.compile(r"^RAYSAE_RESULT (\{.*\})\s*$")


@dataclass(frozen=True)
class Head:
    """A running head: where jobs are submitted, and the environment that lets them in."""

    dashboard: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]


def main(argv: Sequence[str]) -> int:
    """Run one job; return its exit code."""
    if not argv:
        sys.stderr.write("usage: python deploy/run_local.py jobs/NAME.py [options]\n")
        return 2
    # Its default action would end this process alone and leave the head and the job behind.
    signal.signal(signal.SIGTERM, _stop)
    with local_head() as head:
        return submit(head, argv)


def _stop(number: int, _frame: FrameType | None) -> None:
    """End as on an exception, so that everything started is ended."""
    raise SystemExit(128 + number)


@contextmanager
def local_head(num_cpus: int | None = None) -> Iterator[Head]:
    """Start a one-machine Ray head, and end it and all its processes on leaving.

    Args:
        num_cpus: Cores that Ray may use; all of them by default.
    """
    # Short, because the paths of Ray's sockets are limited to 107 characters.
    temporary = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    gcs, dashboard, *others = _free_ports(7)
    environment = _environment(f"http://127.0.0.1:{dashboard}")
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("start", "--head", "--block", "--disable-usage-stats"),
        f"--port={gcs}",
        f"--dashboard-port={dashboard}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-agent-listen-port={others[0]}",
        f"--dashboard-agent-grpc-port={others[1]}",
        f"--metrics-export-port={others[2]}",
        f"--runtime-env-agent-port={others[3]}",
        f"--ray-client-server-port={others[4]}",
        "--node-ip-address=127.0.0.1",
        f"--temp-dir={temporary}",
    ]
    if num_cpus is not None:
        command.append(f"--num-cpus={num_cpus}")
    log = temporary / "head.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        head = Head(environment[API_SERVER], environment, process)
        _wait_until_ready(head, log)
        yield head
    finally:
        _end(process)
        shutil.rmtree(temporary, ignore_errors=True)


def submit(head: Head, argv: Sequence[str]) -> int:
    """Submit a job, stream its output, and return the exit code from its result line."""
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("job", "submit", "--address", head.dashboard, "--", *argv),
    ]
    exit_code = None
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as client:
        assert client.stdout is not None
        for coloured in client.stdout:
            # The Jobs CLI colours its lines even where they go to a file.
            line = COLOUR.sub("", coloured)
            sys.stdout.write(line)
            sys.stdout.flush()
            found = RESULT.match(line)
            if found:
                exit_code = int(json.loads(found[1])["exit_code"])
    return exit_code if exit_code is not None else (client.returncode or 1)


def _environment(dashboard: str) -> dict[str, str]:
    """Environment of head and client: this interpreter first, a token, no other Ray's address."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    environment["RAY_AUTH_MODE"] = "token"
    environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    environment["PYTHONUNBUFFERED"] = "1"
    environment["RAY_COLOR_PREFIX"] = "0"
    # Ray's own actors (Ray Train's cleaner) look for the head, and find those of others beside it.
    environment[API_SERVER] = dashboard
    environment.setdefault("HF_HUB_OFFLINE", "1")
    return environment


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago, below the range that Ray gives its workers."""
    ports: list[int] = []
    while len(ports) < count:
        port = 2048 + secrets.randbelow(7900)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _wait_until_ready(head: Head, log: Path) -> None:
    """Wait until the Jobs server answers."""
    request = urllib.request.Request(
        f"{head.dashboard}/api/jobs/",
        headers={"Authorization": f"Bearer {head.environment['RAY_AUTH_TOKEN']}"},
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and head.process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"the Ray head did not start; its log says:\n{log.read_text()[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the head and every process that it started, and no other."""
    try:
        started = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        started = []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in started:
        if child.is_running():
            child.terminate()
    _, alive = psutil.wait_procs(started, timeout=5)
    for child in alive:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
