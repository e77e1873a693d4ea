"""Requests to a child process that may die of them: the loss of a child is an answer, not an error.

One child serves request after request. The request at which a child dies, hangs or takes too much
memory is given once more to a new child, as its first: only what is lost there too is at fault,
rather than the rows before it or a machine that was short of memory for a moment.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Self

import psutil

from raysae.errors import RaysaeError
from raysae.stages._child import OUT_OF_MEMORY, RAISED, Work

CRASH = "crashes-decoder"
TIMEOUT = "decoder-timeout"
"""Reasons to reject a row."""

ATTEMPTS = 2
"""How often a request is made before it counts as lost."""

_WATCH_S = 0.05
"""Between two looks at the memory of a child that is at work."""

_EXIT_S = 30.0
"""For a process whose connection is closed to end by itself, which tells why."""

_LOG_CHARACTERS = 2000
"""Of what a lost child wrote, for the log of this process."""


@dataclass(frozen=True)
class Limits:
    """How much a child may take.

    Attributes:
        start_s: Seconds until it is ready; importing transformers takes many on a busy machine.
        load_s: Seconds for what rows share: reading the range of a file that they lie in.
        row_s: Seconds for one row. The largest image that is allowed takes a few.
        memory_bytes: Resident memory. Of the largest image that is allowed, 2 GiB are needed.
    """

    start_s: float = 600.0
    load_s: float = 600.0
    row_s: float = 60.0
    memory_bytes: int = 8 << 30


LIMITS = Limits()


@dataclass(frozen=True)
class Loss:
    """A request that no child survived.

    Attributes:
        reason: `crashes-decoder` or `decoder-timeout`.
        detail: What became of the last child; the rest of a sentence that begins with it.
        loading: Whether it was lost in `Work.load`, before the row's own work.
    """

    reason: str
    detail: str
    loading: bool


class Trials:
    """A child process for requests, started when it is needed and replaced when it is lost.

    Use it as a context, which ends the child.

    Args:
        work: What the child does; pickled by import path.
        limits: What it may take.
    """

    def __init__(self, work: Work, limits: Limits) -> None:
        self._work = pickle.dumps(work)
        self._limits = limits
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, request: Any, load_s: float | None = None) -> Any:
        """Do the work of one request.

        Args:
            request: What `Work.load` and `Work.work` are given.
            load_s: Limit for `Work.load`, where it is not `Limits.load_s`.

        Returns:
            What `Work.work` returned, or a `Loss`.

        Raises:
            RaysaeError: A child could not be started.
            Exception: What `Work.load` or `Work.work` raised, unless it was a MemoryError.
        """
        outcome: Any = None
        for _ in range(ATTEMPTS):
            outcome = self._attempt(request, self._limits.load_s if load_s is None else load_s)
            if not isinstance(outcome, Loss):
                break
        return outcome

    def _attempt(self, request: Any, load_s: float) -> Any:
        if self._child is None:
            self._child = _Child(self._work, self._limits)
        loading = True
        try:
            self._child.send(request)
            self._child.receive(load_s)
            loading = False
            return self._child.receive(self._limits.row_s)
        except _LostError as lost:
            sys.stderr.write(f"A child process {lost.detail}. It wrote: {self._child.log()}\n")
            self._end()
            return Loss(lost.reason, lost.detail, loading)

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


class _LostError(Exception):
    """A child is of no more use."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class _Child:
    """One child process that is ready for requests."""

    def __init__(self, work: bytes, limits: Limits) -> None:
        self._memory_bytes = limits.memory_bytes
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        self._connection, theirs = Pipe()
        self._process: subprocess.Popen[bytes] | None = None
        _limit_transfers(self._connection, limits.load_s)
        try:
            with theirs:
                self._process = _spawn(theirs.fileno(), self._log.fileno())
            self._connection.send_bytes(work)
            self.receive(limits.start_s)
        except _LostError as error:
            said = (self.log().splitlines() or ["it wrote nothing"])[-1]
            self.end()
            raise _not_started(f"it {error.detail}; {said}") from error
        except OSError as error:
            self.end()
            raise _not_started(str(error)) from error
        except BaseException:
            self.end()
            raise

    def send(self, request: Any) -> None:
        """Hand a request over."""
        try:
            self._connection.send(request)
        except OSError as error:
            raise self._died() from error

    def receive(self, limit_s: float) -> Any:
        """Wait for the next message, and return its value or raise what it holds."""
        self._wait(limit_s)
        try:
            word, value = self._connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._died() from error
        if word == OUT_OF_MEMORY:
            raise _LostError(CRASH, "asked for more memory than there is")
        if word == RAISED:
            raise value
        return value

    def _wait(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not self._connection.poll(min(_WATCH_S, max(0.0, deadline - time.monotonic()))):
            assert self._process is not None
            # What a decoder started may outlive it and hold the connection open.
            if self._process.poll() is not None and not self._connection.poll():
                raise self._died()
            if time.monotonic() >= deadline:
                raise _LostError(TIMEOUT, f"took longer than {limit_s:g} s")
            if _resident_bytes(self._process.pid) > self._memory_bytes:
                most = self._memory_bytes / (1 << 30)
                raise _LostError(CRASH, f"took more than {most:.3g} GiB of memory")

    def _died(self) -> _LostError:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)
        code = self._kill()
        if code is not None and code < 0:
            return _LostError(CRASH, f"was ended by {signal.Signals(-code).name}")
        return _LostError(CRASH, f"ended with exit code {code}")

    def log(self) -> str:
        """Return the end of what the process wrote, which is ended for that."""
        self._kill()
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-_LOG_CHARACTERS:].strip()

    def end(self) -> None:
        """End the process and see it gone."""
        self._kill()
        self._connection.close()
        self._log.close()

    def _kill(self) -> int | None:
        if self._process is None:
            return None
        # One that has ended already keeps its exit code.
        self._process.kill()
        return self._process.wait()


def _limit_transfers(connection: Connection[Any, Any], limit_s: float) -> None:
    """Let a message raise when it does not move on for so long: its receiver may be stuck."""
    seconds = struct.pack("ll", *divmod(int(limit_s * 1_000_000), 1_000_000))
    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)


def _spawn(connection: int, log: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-P",
        "-m",
        "raysae.stages._child",
        str(connection),
        str(os.getpid()),
    ]
    # A Ray worker finds raysae and a corpus' class where Ray put them; so must the child.
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return subprocess.Popen(  # noqa: S603 - this interpreter and our own module
        command,
        pass_fds=[connection],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
    )


def _not_started(why: str) -> RaysaeError:
    return RaysaeError(
        f"A child process to try rows one by one did not start on this machine ({why}); free "
        "memory or mend its installation, and run the job again."
    )


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
