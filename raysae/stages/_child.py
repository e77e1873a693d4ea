"""The child process that tries rows: it gets its work, then one request after another.

Started by `_trials` as `python -m raysae.stages._child FD PARENT`. Messages are pairs of a word and
a value, because what a program that runs as `__main__` pickles by class is found nowhere else.
Ray is not imported: a child belongs to the process that started it and to no cluster.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import resource
import signal
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from raysae.errors import RaysaeError

READY = "ready"
"""The work's `start` is done: start-up ends here."""
LOADED = "loaded"
"""A request's `load` is done: the row's own time begins."""
DONE = "done"
"""With what `work` returned."""
RAISED = "raised"
"""With the exception that `start`, `load` or `work` raised."""
OUT_OF_MEMORY = "out-of-memory"
"""An allocation was refused."""

_PR_SET_PDEATHSIG = 1


class Work(ABC):
    """What a child does; pickled in the parent by import path, and used in the child alone."""

    def start(self) -> None:  # noqa: B027 - most work needs none
        """Import, open, load: whatever is needed before the first request."""

    def load(self, request: Any) -> None:  # noqa: B027 - likewise
        """Do what a request needs and what is not its row's own work."""

    @abstractmethod
    def work(self, request: Any) -> Any:
        """Do the work of one row; what is returned is pickled."""


def serve(connection: Connection) -> None:
    """Receive the work, then answer requests until the parent closes the connection."""
    work: Work = connection.recv()
    try:
        work.start()
    except RaysaeError as error:
        connection.send((RAISED, error))
        return
    connection.send((READY, None))
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        _answer(connection, work, request)


def _answer(connection: Connection, work: Work, request: Any) -> None:
    try:
        work.load(request)
        connection.send((LOADED, None))
        result = work.work(request)
    except MemoryError:
        connection.send((OUT_OF_MEMORY, None))
    except Exception as error:
        connection.send((RAISED, _sendable(error)))
    else:
        connection.send((DONE, result))


def _sendable(error: Exception) -> Exception:
    """Return an exception that survives the way to the parent, with its traceback as a note."""
    if not isinstance(error, RaysaeError):
        error.add_note("In a child process:\n" + "".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this line
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def die_with(parent: int) -> None:
    """End this process when the thread that started it ends, even in the middle of a row.

    Only Linux offers that; elsewhere a child notices the closed connection when its row is done.
    The thread is there until `Trials` has ended its child: both work in the caller's.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent ended first")


def volunteer_for_the_memory_killer() -> None:
    """Be the first to go when memory runs out: the parent may hold a model."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def main(arguments: Sequence[str]) -> None:
    """Serve the parent whose socket and process id are named."""
    descriptor, parent = map(int, arguments)
    die_with(parent)
    volunteer_for_the_memory_killer()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    os.set_inheritable(descriptor, False)
    serve(Connection(descriptor))


if __name__ == "__main__":
    main(sys.argv[1:])
