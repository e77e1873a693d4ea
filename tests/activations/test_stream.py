from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.activations import CachedTokens, CacheReader, CacheSettings, ReadingOrder, ShardWriter
from raysae.activations.collected import ShardTokens
from raysae.activations.parts import ShardInMemory, shard_parts
from raysae.activations.seeded import random_keys
from raysae.activations.stream import (
    StreamedBatch,
    StreamOrder,
    StreamPosition,
    Window,
    streamed_batches,
)
from tests.activations.caches import bits, token_batch
from tests.reference import activations as reference
from tests.storages import at

D_IN = 3
SHARDS = st.lists(st.integers(0, 30), min_size=1, max_size=9).filter(any)


def shard_in_memory(number: int, rows: int, dtype: str = "float32") -> ShardInMemory:
    """Return a shard whose tokens tell their row in `token_id`."""
    tokens = shard_tokens(number, rows, dtype)
    ordered = tokens.in_order()
    ordered = ordered._replace(columns=with_ids(ordered.columns, np.arange(rows)))
    return ShardInMemory(number, list(shard_parts(ordered, 100)), f"shard {number}")


def with_ids(columns: object, ids: np.ndarray) -> object:
    from dataclasses import replace

    return replace(columns, token_id_n=ids.astype(np.int32))  # type: ignore[type-var]


def shard_tokens(number: int, rows: int, dtype: str) -> ShardTokens:
    tokens = ShardTokens(f"shard-{number}", D_IN, dtype, CacheSettings())
    tokens.add(0, "id", 0, token_batch(rows, D_IN, dtype, seed=number))
    return tokens


def stream(
    order: StreamOrder,
    shard_rows: list[int],
    size: int,
    start: StreamPosition = StreamPosition(),  # noqa: B008 - it cannot be changed
    dtype: str = "float32",
) -> Iterator[StreamedBatch]:
    def windows() -> Iterator[Window]:
        for plan in order.windows_from(start):
            shards = [shard_in_memory(n, shard_rows[n], dtype) for n in plan.shard_s.tolist()]
            yield Window(plan, shards)

    return streamed_batches(windows(), size, start.rows)


def keys(seed: int, epochs: int) -> list[tuple[int, int]]:
    return [tuple(map(int, random_keys(2, seed, epoch))) for epoch in range(epochs)]  # type: ignore[misc]


@settings(max_examples=40, deadline=None)
@given(SHARDS, st.integers(0, 9), st.integers(1, 5), st.integers(1, 4), st.integers(1, 40))
def test_ranks_read_the_rows_of_the_slow_twin(
    shard_rows: list[int], seed: int, mix_shards: int, ranks: int, size: int
) -> None:
    ranks = min(ranks, len(shard_rows))
    epochs = 3
    for rank in range(ranks):
        order = StreamOrder(len(shard_rows), seed, mix_shards, rank, ranks)
        rows = reference.stream_rows(shard_rows, mix_shards, keys(seed, epochs), rank, ranks)
        batches = len(rows) // size
        read = stream(order, shard_rows, size)
        for number, batch in enumerate(islice(read, batches)):
            expected = rows[number * size : (number + 1) * size]
            # Rows of a batch are sorted by shard and row.
            ids = [row for _, _, _, row in sorted(expected, key=lambda one: one[2:])]
            assert batch.tokens.token_id_n.tolist() == ids
            epoch, window = expected[-1][:2]
            left = [one for one in rows[(number + 1) * size :] if one[:2] == (epoch, window)]
            whole = [one for one in rows if one[:2] == (epoch, window)]
            after = (epoch, window, len(whole) - len(left)) if left else (epoch, window + 1, 0)
            assert batch.position == after


def test_an_epoch_of_all_ranks_has_every_shard_once() -> None:
    orders = [StreamOrder(11, 5, 3, rank, 4) for rank in range(4)]
    for epoch in range(3):
        plans = [list(order.windows(epoch)) for order in orders]
        read = [n for one in plans for plan in one for n in plan.shard_s.tolist()]
        assert sorted(read) == list(range(11))
        assert [sum(len(plan.shard_s) for plan in one) for one in plans] == [3, 3, 3, 2]
        assert [order.shards_of_epoch for order in orders] == [3, 3, 3, 2]
        places = [plan.place for one in plans for plan in one]
        assert len(set(places)) == len(places)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mix_shards", [1, 2, 4, 9])
def test_one_rank_reads_the_batches_of_a_cache(tmp_path: Path, dtype: str, mix_shards: int) -> None:
    """The same rows, in the same order, to the bit, over more than two epochs."""
    shard_rows = [7, 12, 1, 9, 30, 4]
    files, shards = [], []
    for number, rows in enumerate(shard_rows):
        writer = ShardWriter(at(tmp_path), f"shard-{number}", D_IN, dtype, CacheSettings())
        writer.add(0, "id", 0, token_batch(rows, D_IN, dtype, seed=number))
        files.append(writer.finish().shard.data)
        parts = list(shard_parts(shard_tokens(number, rows, dtype).in_order(), 64))
        shards.append(ShardInMemory(number, parts, "x"))
    reader = CacheReader(at(tmp_path), files)
    order = ReadingOrder(shard_rows, 3, mix_shards)
    plans = StreamOrder(len(shard_rows), 3, mix_shards).windows_from(StreamPosition())
    windows = (Window(plan, [shards[n] for n in plan.shard_s.tolist()]) for plan in plans)
    for step, batch in enumerate(islice(streamed_batches(windows, 20), 8)):
        assert_same(batch.tokens, reader.read(*order.rows(step, 20)))


def assert_same(found: CachedTokens, expected: CachedTokens) -> None:
    assert bits(found.acts_nd) == bits(expected.acts_nd)
    for name in ("modality_n", "sample_n", "position_n", "token_id_n", "norm_n"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_whatever_batch_it_goes_on_after_the_rest_is_the_same() -> None:
    shard_rows = [5, 0, 11, 3, 8]
    order = StreamOrder(5, 1, 2, 0, 1)
    whole = list(islice(stream(order, shard_rows, 6), 12))
    for done in range(1, 12):
        start = whole[done - 1].position
        rest = list(islice(stream(order, shard_rows, 6, start), 12 - done))
        assert [one.position for one in rest] == [one.position for one in whole[done:]]
        for found, expected in zip(rest, whole[done:], strict=True):
            assert_same(found.tokens, expected.tokens)


def test_a_rank_goes_on_in_the_window_that_it_was_in() -> None:
    order = StreamOrder(10, 0, 2, 1, 3)
    plans = list(takewhile(lambda plan: plan.epoch < 3, order.windows_from(StreamPosition())))
    for plan in plans:
        first = next(order.windows_from(StreamPosition(plan.epoch, plan.number, 5)))
        assert (first.epoch, first.number) == (plan.epoch, plan.number)
        np.testing.assert_array_equal(first.shard_s, plan.shard_s)


def test_a_sample_is_spread_over_the_window_in_the_order_of_the_corpus() -> None:
    plan = next(StreamOrder(3, 0, 3).windows_from(StreamPosition()))
    rows = [40, 20, 60]
    window = Window(plan, [shard_in_memory(n, rows[n]) for n in plan.shard_s.tolist()])
    sample = window.sample(12)
    assert sample.token_id_n.tolist() == [0, 10, 20, 30, 0, 10, 0, 10, 20, 30, 40, 50]
    assert len(window.sample(1000)) == 120


def test_no_window_is_held_while_the_next_is_asked_for() -> None:
    import weakref

    seen: list[weakref.ref[Window]] = []

    def windows() -> Iterator[Window]:
        for plan in StreamOrder(6, 0, 1).windows_from(StreamPosition()):
            assert not any(ref() for ref in seen)
            window = Window(plan, [shard_in_memory(n, 10) for n in plan.shard_s.tolist()])
            seen.append(weakref.ref(window))
            yield window
            del window

    assert len(list(islice(streamed_batches(windows(), 4), 30))) == 30
    assert len(seen) == 12
