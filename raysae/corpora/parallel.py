"""Threads for work that waits: on disks, on networks, on code that lets other threads run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_CHUNK = 16
"""Items in a task: for small files a task costs as much as an item."""

_CHUNKS_AHEAD = 4
"""Tasks for each thread, running or waiting; bounds what lies about."""


def in_order(
    function: Callable[[T], R],
    items: Iterable[T],
    threads: int,
    *,
    cautious: bool = False,
    one_by_one: bool = False,
) -> Iterator[R]:
    """Yield `function(item)` for each item, in their order, worked out by threads.

    Threads change nothing but the time: the first error *in the order of the items* is raised,
    after the results before it, as a loop would.

    Args:
        function: Called from many threads.
        items: Its arguments.
        threads: How many.
        cautious: Begin with one item and double: the caller may stop early.
        one_by_one: Take single items, one ahead for each thread: what comes out of them is large.
    """
    left = iter(items)
    most, most_ahead = (1, threads) if one_by_one else (_CHUNK, _CHUNKS_AHEAD * threads)
    chunk, ahead = (1, 1) if cautious else (most, most_ahead)
    running: deque[Future[tuple[list[R], Exception | None]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="raysae-corpus")
    try:
        while True:
            while len(running) < ahead and (some := list(islice(left, chunk))):
                running.append(pool.submit(_until_error, function, some))
            if not running:
                return
            results, error = running.popleft().result()
            yield from results
            if error is not None:
                raise error
            chunk, ahead = min(2 * chunk, most), min(2 * ahead, most_ahead)
    finally:
        pool.shutdown(cancel_futures=True)


def _until_error(function: Callable[[T], R], items: list[T]) -> tuple[list[R], Exception | None]:
    results: list[R] = []
    for item in items:
        try:
            results.append(function(item))
        except Exception as error:
            return results, error
    return results, None
