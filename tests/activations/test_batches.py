"""One rank's slices of the batches, read ahead."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from raysae.activations import BatchReader, CachedTokens, CacheReader, ReadingOrder
from raysae.activations.batches import BATCHES_AHEAD
from raysae.errors import DataError
from raysae.storage import Directory
from tests.activations.caches import bits, token_batch, write_shard
from tests.storage.fake_store import Store, fake_backend
from tests.storages import at

LENGTHS = [(40, 3), (1,), (25, 25, 9), (0,), (60,), (31, 2)]
BATCH = 32


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """Six shards, one of them without a token."""
    return [
        write_shard(
            tmp_path,
            [token_batch(n, 4, "bfloat16", seed=9 * shard + at) for at, n in enumerate(lengths)],
            name=f"shard-{shard:05d}",
        ).shard.data
        for shard, lengths in enumerate(LENGTHS)
    ]


def reader_and_order(
    directory: Directory, names: list[str], mix: int = 2
) -> tuple[CacheReader, ReadingOrder]:
    reader = CacheReader(directory, names)
    return reader, ReadingOrder(reader.shard_rows, seed=5, mix_shards=mix)


def identities(tokens: CachedTokens) -> list[tuple[int, int, bytes]]:
    """Return what tells tokens apart: id, position and the hidden state's bits."""
    return [
        (token_id, position, bits(act_d))
        for token_id, position, act_d in zip(
            tokens.token_id_n.tolist(), tokens.position_n.tolist(), tokens.acts_nd, strict=True
        )
    ]


@pytest.mark.parametrize("readers", [1, 2, 4])
@pytest.mark.parametrize("first", [0, 7])
def test_readers_together_read_the_order_whatever_their_number(
    tmp_path: Path, names: list[str], readers: int, first: int
) -> None:
    """Every batch is the one that the order names, over more than an epoch."""
    stop = 20
    slices = [
        slice(BATCH * rank // readers, BATCH * (rank + 1) // readers) for rank in range(readers)
    ]
    parts = []
    for mine in slices:
        reader, order = reader_and_order(at(tmp_path), names)
        batches = BatchReader(reader, order, BATCH, mine).batches(first, stop)
        parts.append([identities(tokens) for tokens in batches])
    plain, order = reader_and_order(at(tmp_path), names)
    assert order.total_rows < (stop - first) * BATCH / 2
    for step, read in zip(range(first, stop), zip(*parts, strict=True), strict=True):
        for mine, slice_read in zip(slices, read, strict=True):
            shard_n, row_n = (part[mine] for part in order.rows(step, BATCH))
            assert slice_read == identities(plain.read(shard_n, row_n))


def test_nothing_is_read_twice_in_an_epoch(tmp_path: Path, names: list[str]) -> None:
    reader, order = reader_and_order(at(tmp_path), names)
    whole = BatchReader(reader, order, order.total_rows // 4, slice(None)).batches(0, 4)
    seen = [one for tokens in whole for one in identities(tokens)]
    assert len(set(seen)) == len(seen) == order.total_rows


def test_few_batches_are_read_ahead(
    tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, order = reader_and_order(at(tmp_path), names)
    done = threading.Semaphore(0)
    read = reader.read

    def counted(*rows: np.ndarray) -> CachedTokens:
        tokens = read(*rows)
        done.release()
        return tokens

    monkeypatch.setattr(reader, "read", counted)
    batches = BatchReader(reader, order, 8, slice(None)).batches(0, 20)
    next(batches)
    for _ in range(1 + BATCHES_AHEAD):
        assert done.acquire(timeout=20)
    assert not done.acquire(timeout=0.2)
    batches.close()


def test_a_batch_is_good_until_the_next_is_asked_for(tmp_path: Path, names: list[str]) -> None:
    """However far the thread that reads ahead has come; and no more batches are in memory."""
    reader, order = reader_and_order(at(tmp_path), names)
    plain, _ = reader_and_order(at(tmp_path), names)
    seen = set()
    for step, tokens in enumerate(BatchReader(reader, order, 8, slice(None)).batches(0, 12)):
        time.sleep(0.02)
        assert identities(tokens) == identities(plain.read(*order.rows(step, 8)))
        seen.add(tokens.acts_nd.data_ptr())
    assert len(seen) == 1 + BATCHES_AHEAD


def test_an_end_before_the_last_batch_leaves_no_thread(tmp_path: Path, names: list[str]) -> None:
    before = set(threading.enumerate())
    reader, order = reader_and_order(at(tmp_path), names)
    batches = BatchReader(reader, order, 8, slice(None)).batches(0, 10**9)
    for _ in range(3):
        next(batches)
    batches.close()
    deadline = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def test_a_shard_that_is_lost_is_named_where_its_rows_are_read(
    tmp_path: Path, names: list[str]
) -> None:
    reader, order = reader_and_order(at(tmp_path), names, mix=1)
    rows = CacheReader(at(tmp_path), names).shard_rows
    reader = CacheReader(at(tmp_path), names, rows)
    (tmp_path / names[4]).unlink()
    batches = BatchReader(reader, order, 1, slice(None)).batches(0, order.total_rows)
    with pytest.raises(DataError, match=f"{names[4]} is missing"):
        for _ in batches:
            pass


def test_the_shards_of_two_windows_are_ahead() -> None:
    rows = [10, 0, 10, 10, 10, 10, 0, 10]
    order = ReadingOrder(rows, seed=3, mix_shards=3)
    for step in range(24):
        ahead = order.shards_ahead(step, 5, 1000)
        read = {int(shard) for at in (0, 1) for shard in order.rows(step + at, 5)[0]}
        assert read <= set(ahead)
        assert len(ahead) <= 6 + 3 * (step % 12 in {5, 11})  # a batch of two windows
        assert all(rows[shard] for shard in ahead)


def test_a_batch_of_many_windows_has_all_their_shards_ahead() -> None:
    order = ReadingOrder([3] * 20, seed=3, mix_shards=2)
    for step in range(10):
        assert {*order.rows(step, 25)[0].tolist()} <= {*order.shards_ahead(step, 25, 10)}


def test_no_shard_is_ahead_of_the_last_batch() -> None:
    order = ReadingOrder([10] * 8, seed=3, mix_shards=2)
    for stop in range(1, 9):
        read = {int(s) for step in range(stop) for s in order.rows(step, 10)[0]}
        ahead = {s for step in range(stop) for s in order.shards_ahead(step, 10, stop)}
        windows = {s for step in range(stop + stop % 2) for s in order.rows(step, 10)[0].tolist()}
        assert read <= ahead <= windows


def test_shards_of_a_bucket_are_fetched_once_and_before_they_are_needed(
    tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSAE_NODE_CACHE", str(tmp_path / "copies"))
    store, fetched = Store(), []

    def step(name: str, path: str) -> None:
        if name == "get":
            fetched.append(path.rsplit("/", 1)[1])

    bucket = Directory(fake_backend(store, step))
    for name in names:
        bucket.put_bytes(name, (tmp_path / name).read_bytes())
    shard_rows = CacheReader(at(tmp_path), names).shard_rows
    reader = CacheReader(bucket, names, shard_rows)
    order = ReadingOrder(shard_rows, seed=5, mix_shards=2)
    batches = BatchReader(reader, order, 8, slice(None)).batches(0, 2 * order.total_rows // 8)
    first = next(batches)
    deadline = time.monotonic() + 20
    same = ReadingOrder(shard_rows, seed=5, mix_shards=2)
    while not {names[s] for s in same.shards_ahead(0, 8, 10)} <= set(fetched):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    local, same_order = reader_and_order(at(tmp_path), names)
    assert identities(first) == identities(local.read(*same_order.rows(0, 8)))
    for number, tokens in enumerate(batches, start=1):
        assert identities(tokens) == identities(local.read(*same_order.rows(number, 8)))
    assert sorted(fetched) == sorted({*names} - {names[3]} | {names[0]})


def test_norms_are_those_of_the_rows(tmp_path: Path) -> None:
    batch = token_batch(50, 4)
    batch.acts_nd[:] = torch.randn(50, 4)
    files = write_shard(tmp_path, [batch])
    tokens = CacheReader(at(tmp_path), [files.shard.data]).read_rows(0, range(50))
    torch.testing.assert_close(torch.from_numpy(tokens.norm_n), tokens.acts_nd.norm(dim=1))
