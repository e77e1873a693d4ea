"""Images decoded and processed by threads while the device computes, a batch ahead."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from raysae.errors import RejectedSampleError
from raysae.models import HiddenStateModel, PreparedSample
from raysae.sample import Sample
from raysae.stages._trials import LIMITS
from raysae.stages._watchdog import ends_process_after

BATCHES_AHEAD = 1
"""Batches whose images are held beside the one that is computed: enough to keep threads at work."""

PIXELS_AT_ONCE = 32 * 2**20
"""Of images that are decoded at the same time; a larger one is decoded alone."""

DECODING_BYTES_PER_PIXEL = 16
"""What decoding and processing hold of a pixel at most: 14 were measured."""

Filled = PreparedSample | RejectedSampleError
"""A sample with its images, or why it cannot have them."""


def filled_batches(
    model: HiddenStateModel,
    samples: Sequence[Sample],
    outlined: Sequence[PreparedSample],
    batches: Sequence[Sequence[int]],
    threads: int,
) -> Iterator[list[Filled]]:
    """Yield each batch's samples with their images, in order.

    What comes out does not depend on the number of threads. The process ends if a sample takes too
    long, as in `_watchdog`.

    Args:
        model: What the images are processed for.
        samples: All samples.
        outlined: What `model.outline` made of each.
        batches: Indices into both.
        threads: How many decode at once.
    """
    pool = ThreadPoolExecutor(threads, "fill")
    pixels = _Pixels(PIXELS_AT_ONCE)
    pending: deque[list[Future[Filled]]] = deque()
    try:
        for number in range(len(batches)):
            for batch in batches[number + len(pending) : number + 1 + BATCHES_AHEAD]:
                pending.append(
                    [pool.submit(_fill, model, samples[i], outlined[i], pixels) for i in batch]
                )
            yield [_wait(future) for future in pending.popleft()]
    finally:
        # After an error a sample may still be at work, and never end.
        with ends_process_after(LIMITS.row_s):
            pool.shutdown(cancel_futures=True)


class _Pixels:
    """Bounds the pixels that are decoded at once; who waits is served in the order of asking."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Wait until so many fit, or nothing else is at work, and hold them."""
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._used == 0 or self._used + pixels <= self._most)
            self._used += pixels
        try:
            yield
        finally:
            with self._freed:
                self._used -= pixels
                self._freed.notify()


def _fill(
    model: HiddenStateModel, sample: Sample, outlined: PreparedSample, pixels: _Pixels
) -> Filled:
    with pixels.taken(sum(image.width * image.height for image in outlined.images)):
        try:
            return model.fill(sample, outlined)
        except RejectedSampleError as error:
            return error


def _wait(future: Future[Filled]) -> Filled:
    """Wait for one sample; those before it are done, so that its own turn has come."""
    if future.done():
        return future.result()  # Setting the clock takes longer than the look at a text.
    with ends_process_after(LIMITS.row_s):
        return future.result()
