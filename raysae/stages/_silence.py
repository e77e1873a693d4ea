"""A word now and then from a job that waits: for nodes, or for a long shard.

Ray Data's own is dropped: it takes every source that waits for its consumer, as that of the shards
does nearly all the time, for a sign that the cluster is too small.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SILENCE_S = 300.0
"""Seconds after which something is said, and said again."""


_RAY_DATA_SAYS = "is running but has no outputs for"
_RAY_DATA_LOG = logging.getLogger("ray.data._internal.execution.streaming_executor_state")


def _is_news(record: logging.LogRecord) -> bool:
    return _RAY_DATA_SAYS not in str(record.msg)


@contextmanager
def told_of_silence(stage: str) -> Iterator[Callable[[], None]]:
    """Print a line whenever no shard was finished for `SILENCE_S` seconds more.

    Args:
        stage: Its name, for the line.

    Yields:
        What is to be called when a shard is finished.
    """
    last = [time.monotonic()]
    ended = threading.Event()

    def heard() -> None:
        last[0] = time.monotonic()

    def watch() -> None:
        told = last[0]
        while not ended.wait(SILENCE_S / 10):
            now = time.monotonic()
            told = max(told, last[0])
            if now - told >= SILENCE_S:
                told = now
                sys.stdout.write(
                    f"{stage}: no shard was finished for {(now - last[0]) / 60:.0f} minutes; they "
                    "are long, or the cluster has no nodes for them (`ray status`), which are "
                    "waited for\n"
                )
                sys.stdout.flush()

    thread = threading.Thread(target=watch, name="silence", daemon=True)
    thread.start()
    _RAY_DATA_LOG.addFilter(_is_news)
    try:
        yield heard
    finally:
        _RAY_DATA_LOG.removeFilter(_is_news)
        ended.set()
        thread.join()
