from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from itertools import islice

import pytest

from raysae.activations.stream import WINDOWS_IN_MEMORY, StreamOrder, StreamPosition, Window
from raysae.errors import DataError
from raysae.stages._stream import StreamedShard
from raysae.stages._streamed_tokens import _StreamedTokens
from raysae.stages._windows import WindowFiller
from tests.activations.test_stream import shard_in_memory

START = StreamPosition()


class Shards:
    """Stands in for a `ShardStream`: shards of some rows, in order, and how many were taken."""

    def __init__(
        self,
        order: StreamOrder,
        rows: list[int],
        fails_after: int | None = None,
        start: StreamPosition = START,
    ) -> None:
        self.order = order
        self.rows = rows
        self.fails_after = fails_after
        self.start = start
        self.taken = 0
        self.closed = False
        self.stopped = threading.Event()

    def shards(self) -> Iterator[StreamedShard]:
        try:
            for plan in self.order.windows_from(self.start):
                for number in plan.shard_s.tolist():
                    if self.taken == self.fails_after:
                        raise DataError("x is damaged; restore it.")
                    if self.stopped.is_set():
                        return
                    self.taken += 1
                    counts = {"rows": 1, "rejected": 0, "tokens": self.rows[number]}
                    yield StreamedShard(shard_in_memory(number, self.rows[number]), counts)
        finally:
            self.closed = True

    def stop(self) -> None:
        self.stopped.set()


def filler(
    shards: Shards, checks: list[int] | None = None, start: StreamPosition = START
) -> WindowFiller:
    def on_epoch() -> bool:
        if checks is not None:
            checks.append(shards.taken)
        return checks is not None and len(checks) == 2

    return WindowFiller(shards.order, start, shards, on_epoch)  # type: ignore[arg-type]


def settled(shards: Shards) -> int:
    """Return how many shards are taken when no more are for a while."""
    taken, since = shards.taken, time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if shards.taken != taken:
            taken, since = shards.taken, time.monotonic()
    return taken


def test_two_windows_are_in_memory() -> None:
    shards = Shards(StreamOrder(6, 0, 2), [5] * 6)
    running = filler(shards)
    windows = running.windows()
    assert settled(shards) == 2 * WINDOWS_IN_MEMORY
    first = next(windows)
    assert isinstance(first, Window)
    assert settled(shards) == 2 * WINDOWS_IN_MEMORY
    next(windows)
    assert settled(shards) == 2 * WINDOWS_IN_MEMORY + 2
    running.stop()
    assert shards.closed


def test_the_window_of_the_start_sample_is_given_up_like_the_others() -> None:
    shards = Shards(StreamOrder(6, 0, 2), [8] * 6)
    running = filler(shards)
    seen: list[weakref.ref[Window]] = []
    take = running.windows

    def noted() -> Iterator[Window]:
        for window in take():
            assert not any(ref() for ref in seen)
            seen.append(weakref.ref(window))
            yield window
            del window

    running.windows = noted  # type: ignore[method-assign]
    tokens = _StreamedTokens(running, StreamPosition(), 16)
    assert len(tokens.start_sample()) == 16
    positions = []
    for batch in tokens.batches(0, 7):
        assert len(batch) == 16
        positions.append(tokens.position())
    assert positions == [[e, w, 0] for e, w in [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]] + [
        [2, 1, 0]
    ]
    running.stop()


def test_windows_come_in_order_without_an_end_and_those_without_tokens_are_left_out() -> None:
    order = StreamOrder(5, 3, 1)
    shards = Shards(order, [3, 0, 4, 0, 2])
    running = filler(shards)
    plans = [plan for plan in islice(order.windows_from(StreamPosition()), 20)]  # noqa: C416
    expected = [(p.epoch, p.number) for p in plans if shards.rows[p.shard_s[0]]]
    found = [(w.plan.epoch, w.plan.number) for w in islice(running.windows(), len(expected))]
    assert found == expected
    running.stop()


def test_what_is_wrong_with_a_shard_is_raised_where_windows_are_read() -> None:
    shards = Shards(StreamOrder(4, 0, 1), [5] * 4, fails_after=3)
    windows = filler(shards).windows()
    assert len(list(islice(windows, 3))) == 3
    with pytest.raises(DataError, match="x is damaged"):
        next(windows)


def test_a_corpus_without_tokens_is_no_endless_job() -> None:
    shards = Shards(StreamOrder(3, 0, 2), [0, 0, 0])
    with pytest.raises(DataError, match=r"^train: the corpus gave no token .*cache settings"):
        next(filler(shards).windows())


@pytest.mark.parametrize(("window", "first"), [(2, (1, 0)), (1, (1, 0)), (0, (0, 0))])
def test_a_run_that_goes_on_behind_the_last_tokens_of_an_epoch_finds_the_next_one(
    window: int, first: tuple[int, int]
) -> None:
    """A checkpoint may be of an epoch's very end, or of a place with empty windows behind it."""
    order = StreamOrder(4, 0, 2)
    rows = [5] * 4
    *_, last = order.windows(0)
    for number in last.shard_s.tolist():
        rows[number] = 0
    start = StreamPosition(0, window)
    running = filler(Shards(order, rows, start=start), start=start)
    found = next(running.windows())
    running.stop()
    assert (found.plan.epoch, found.plan.number) == first


def test_an_epoch_without_tokens_behind_the_one_that_was_entered_ends_the_job() -> None:
    start = StreamPosition(0, 1)
    shards = Shards(StreamOrder(3, 0, 2), [0, 0, 0], start=start)
    with pytest.raises(DataError, match=r"^train: the corpus gave no token"):
        next(filler(shards, start=start).windows())
    assert shards.taken == 1 + 3


def test_the_ends_of_epochs_are_told_until_that_was_enough() -> None:
    checks: list[int] = []
    shards = Shards(StreamOrder(3, 0, 2), [5] * 3)
    running = filler(shards, checks)
    list(islice(running.windows(), 10))
    running.stop()
    assert checks == [3, 6]


def test_who_waits_for_a_window_is_let_go() -> None:
    class Stuck(Shards):
        def shards(self) -> Iterator[StreamedShard]:
            self.stopped.wait()
            yield from ()

    running = filler(Stuck(StreamOrder(3, 0, 2), [5] * 3))
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            next(running.windows())
        except Exception as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    running.stop()
    waiting.join(10)
    assert len(raised) == 1


def test_rank_0_tells_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    shards = Shards(StreamOrder(5, 0, 2, 0, 2), [5] * 5)
    running = filler(shards)
    list(islice(running.windows(), 3))
    running.stop()
    assert (
        "stream: epoch 1, 3/3 shards of rank 0 of 2, 3 rows, 0 rejected, 15 tokens, "
        in capsys.readouterr().out
    )
    assert "rank 1" not in capsys.readouterr().out
