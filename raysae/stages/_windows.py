"""Windows of shards, filled by a thread while those before them are used."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from queue import SimpleQueue

from raysae.activations.parts import ShardInMemory
from raysae.activations.stream import (
    WINDOWS_IN_MEMORY,
    StreamOrder,
    StreamPosition,
    Window,
    WindowPlan,
)
from raysae.errors import DataError
from raysae.stages._progress import LOG_INTERVAL_S, progress_line
from raysae.stages._silence import told_of_silence
from raysae.stages._stream import ShardStream, StreamedShard

STOP_S = 30.0
"""For the thread to end, once the actors were told to."""


class WindowFiller:
    """Fills the windows of one rank, two of which are in memory at any time.

    Args:
        order: Which shards make up each window.
        start: The first window.
        stream: Yields these shards, in order.
        on_epoch: Called in the thread at the end of an epoch until it returns true.
    """

    def __init__(
        self,
        order: StreamOrder,
        start: StreamPosition,
        stream: ShardStream,
        on_epoch: Callable[[], bool],
    ) -> None:
        self._order = order
        self._start = start
        self._stream = stream
        self._on_epoch = on_epoch
        self._filled: SimpleQueue[Window | BaseException] = SimpleQueue()
        self._room = threading.Semaphore(WINDOWS_IN_MEMORY)
        self._stopping = threading.Event()
        self._progress = _Progress(order)
        self._thread = threading.Thread(target=self._run, name="windows", daemon=True)
        self._thread.start()

    def windows(self) -> Iterator[Window]:
        """Yield the windows that have tokens; when one is asked for, those before are given up.

        Raises:
            RaysaeError: What an actor raised, or that processes died too often.
            DataError: An epoch had no token, or too many rows could not be used.
        """
        while True:
            filled = self._filled.get()
            if isinstance(filled, BaseException):
                raise filled
            yield filled
            del filled
            self._room.release()

    def stop(self) -> None:
        """End the thread and the actors."""
        self._stopping.set()
        self._room.release()
        self._stream.stop()
        self._filled.put(_StoppedError())
        self._thread.join(STOP_S)

    def _run(self) -> None:
        try:
            with told_of_silence("train") as heard, closing(self._stream.shards()) as shards:
                self._fill(shards, heard)
        except BaseException as error:
            self._filled.put(error)

    def _fill(self, shards: Iterator[StreamedShard], heard: Callable[[], None]) -> None:
        # An epoch that is entered in its middle has had tokens: those that were read before.
        epoch, tokens, checked = self._start.epoch, int(self._start[1:] != (0, 0)), False
        for plan in self._order.windows_from(self._start):
            if plan.epoch > epoch:
                if not tokens:
                    raise _no_token()
                checked = checked or self._on_epoch()
                epoch, tokens = plan.epoch, 0
            self._wait_for_room(heard)
            window = Window(plan, list(self._shards(plan, shards, heard)))
            tokens += window.rows
            if self._stopping.is_set():
                return
            if window.rows:
                self._filled.put(window)
            else:
                self._room.release()
            del window

    def _wait_for_room(self, heard: Callable[[], None]) -> None:
        """Wait until a window may be filled; that the others are still read is no silence."""
        while not self._room.acquire(timeout=LOG_INTERVAL_S):
            heard()
        heard()

    def _shards(
        self, plan: WindowPlan, shards: Iterator[StreamedShard], heard: Callable[[], None]
    ) -> Iterator[ShardInMemory]:
        """Yield the shards of one window, as they come; fewer of them if all is stopped."""
        for number in plan.shard_s.tolist():
            shard = next(shards, None)
            if self._stopping.is_set():
                return
            assert shard is not None, "there is no last task"
            assert shard.tokens.number == number, "shards come in the order of their tasks"
            heard()
            self._progress.add(plan, shard.counts)
            yield shard.tokens


class _StoppedError(Exception):
    """No window will come any more."""


class _Progress:
    """Prints a line now and then, in rank 0."""

    def __init__(self, order: StreamOrder) -> None:
        self._order = order
        self._counts: dict[str, float] = {}
        self._epoch, self._done = -1, 0
        self._started = self._logged = time.monotonic()

    def add(self, plan: WindowPlan, counts: dict[str, int]) -> None:
        """Count a shard that has arrived."""
        if plan.epoch != self._epoch:
            self._epoch, self._done = plan.epoch, plan.number * self._order.mix_shards
        self._done += 1
        for name, count in counts.items():
            self._counts[name] = self._counts.get(name, 0) + count
        now = time.monotonic()
        whole = self._done == self._order.shards_of_epoch
        if self._order.rank or not (whole or now - self._logged > LOG_INTERVAL_S):
            return
        self._logged = now
        share = f" of rank 0 of {self._order.world_size}" if self._order.world_size > 1 else ""
        line = progress_line(self._counts, now - self._started)
        sys.stdout.write(
            f"stream: epoch {plan.epoch + 1}, {self._done}/{self._order.shards_of_epoch} shards"
            f"{share}, {line}\n"
        )
        sys.stdout.flush()


def _no_token() -> DataError:
    return DataError(
        "train: the corpus gave no token in a whole epoch; keep more of them with other cache "
        "settings, or see what is rejected with jobs/inspect.py."
    )
