"""An end to what never ends: a row that stalls its decoder loses its process, as one that kills it.

Then the attempt marks find it out (`raysae.artifacts.Attempts`). A thread of the interpreter's own
watches the clock, because a decoder in C code may hold the lock that Python's threads need.
"""

from __future__ import annotations

import faulthandler
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def ends_process_after(seconds: float) -> Iterator[None]:
    """End this process, with its stacks in its log, if the block takes longer. Not to be nested."""
    assert sys.__stderr__ is not None, "a worker has a log"
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def ends_process_if_stalled(seconds: float) -> Iterator[Callable[[], None]]:
    """End this process, with its stacks in its log, if nothing is heard for so long in the block.

    To be used where much is done that takes little each, as setting the clock takes most of a
    millisecond: signs of life within a twentieth of the time count as one, so that the process may
    end so much earlier. Not to be nested.

    Yields:
        What gives a sign of life.
    """
    log, heard = sys.__stderr__, -math.inf
    assert log is not None, "a worker has a log"

    def sign() -> None:
        nonlocal heard
        now = time.monotonic()
        if now - heard > seconds / 20:
            heard = now
            faulthandler.dump_traceback_later(seconds, exit=True, file=log)

    sign()
    try:
        yield sign
    finally:
        faulthandler.cancel_dump_traceback_later()


def watched(items: Iterable[Item], first_s: float, item_s: float) -> Iterator[Item]:
    """Yield items; the process ends if one takes too long to come.

    Args:
        items: What is watched.
        first_s: Seconds for the first item, whose maker may prepare for all of them.
        item_s: Seconds for every other one.
    """
    iterator, limit = iter(items), first_s
    while True:
        with ends_process_after(limit):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item
        limit = item_s
