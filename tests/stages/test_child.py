from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from raysae.errors import DataError
from raysae.stages._child import DONE, LOADED, RAISED, READY, Work, serve

REPOSITORY = Path(__file__).parents[2]


class Halving(Work):
    def work(self, request: int) -> int:
        if request % 2:
            raise DataError(f"{request} is odd.")
        return request // 2


def test_it_answers_until_no_more_requests_can_come() -> None:
    ours, theirs = socket.socketpair()
    with Connection(os.dup(ours.fileno())) as parent, Connection(theirs.detach()) as child:
        for message in (Halving(), 4, 3, 6):
            parent.send(message)
        ours.shutdown(socket.SHUT_WR)
        serve(child)
        assert [parent.recv() for _ in range(3)] == [(READY, None), (LOADED, None), (DONE, 2)]
        assert parent.recv() == (LOADED, None)
        word, error = parent.recv()
        assert (word, type(error), str(error)) == (RAISED, DataError, "3 is odd.")
        assert [parent.recv() for _ in range(2)] == [(LOADED, None), (DONE, 3)]
        assert not parent.poll()
    ours.close()


def test_a_child_whose_parent_is_gone_before_it_runs_ends() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-m", "raysae.stages._child", str(theirs.fileno()), "1"],
            cwd=REPOSITORY,
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "the parent ended first\n")
