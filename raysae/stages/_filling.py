"""Images decoded and processed by threads while the device computes, a few batches ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from raysae.errors import RejectedSampleError
from raysae.models import HiddenStateModel, PreparedSample
from raysae.sample import Sample
from raysae.stages._trials import LIMITS
from raysae.stages._watchdog import ends_process_after

BATCHES_AHEAD = 1
"""Batches whose images are held beside the one that is computed: enough to keep threads at work."""

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
    pending: deque[list[Future[Filled]]] = deque()
    try:
        for number in range(len(batches)):
            for batch in batches[number + len(pending) : number + 1 + BATCHES_AHEAD]:
                pending.append([pool.submit(_fill, model, samples[i], outlined[i]) for i in batch])
            yield [_wait(future) for future in pending.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(model: HiddenStateModel, sample: Sample, outlined: PreparedSample) -> Filled:
    try:
        return model.fill(sample, outlined)
    except RejectedSampleError as error:
        return error


def _wait(future: Future[Filled]) -> Filled:
    """Wait for one sample; those before it are done, so that its own turn has come."""
    with ends_process_after(LIMITS.row_s):
        return future.result()
