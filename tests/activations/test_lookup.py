"""Single tokens, by sample and position."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from raysae.activations import (
    CachedShard,
    CacheSettings,
    ShardWriter,
    TokenLookup,
    cached_shards,
    lookup,
)
from raysae.errors import DataError
from raysae.sample import TokenBatch
from raysae.storage import Directory
from tests.activations.caches import DTYPES, bits, token_batch
from tests.storage.fake_store import Store, fake_backend
from tests.storages import at

LENGTHS = [[1, 2928, 0, 17], [], [5], [1]]


@pytest.fixture(autouse=True)
def node_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYSAE_NODE_CACHE", str(tmp_path / "copies"))


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record batches of a hundred rows and more, so that a shard has many."""
    monkeypatch.setattr("raysae.activations.shard_file.MAX_BATCH_BYTES", 3000)


class Cache:
    """A small cache, and the samples that went into it."""

    def __init__(self, directory: Directory, dtype: str, **options: str) -> None:
        self.batches: dict[tuple[int, int], TokenBatch] = {}
        self.shards: list[CachedShard] = []
        for shard, lengths in enumerate(LENGTHS):
            name = f"shard-{shard:05d}"
            writer = ShardWriter(directory, name, 6, dtype, CacheSettings(), **options)  # type: ignore[arg-type]
            for sample, n in enumerate(lengths):
                batch = token_batch(n, 6, dtype, seed=100 * shard + sample)
                self.batches[shard, sample] = batch
                writer.add(sample, f"id-{sample}", sample, batch)
            self.shards.append(writer.finish().shard)


def test_samples_are_found_by_their_ids(tmp_path: Path) -> None:
    directory = at(tmp_path)
    shards = []
    for number, ids in enumerate([["b", "a"], [], ["c", "a"]]):
        writer = ShardWriter(directory, f"shard-{number:05d}", 6, "float32", CacheSettings())
        for row, sample_id in enumerate(ids):
            writer.add(row, sample_id, row, token_batch(3, 6, "float32"))
        shards.append(writer.finish().shard)
    tokens = TokenLookup(directory, shards)
    assert tokens.find(["c", "a", "b", "a"]) == [(2, 0), (0, 1), (0, 0), (0, 1)]
    assert tokens.find([]) == []
    with pytest.raises(IndexError, match="has no sample 'd'"):
        tokens.find(["a", "d"])


@pytest.mark.parametrize("is_local", [True, False])
def test_a_missing_token_file_is_named(tmp_path: Path, is_local: bool) -> None:
    directory = at(tmp_path) if is_local else Directory(fake_backend(Store()), "cache")
    cache = Cache(directory, "float32")
    directory.delete(cache.shards[0].data)
    asked = [np.array([number]) for number in (0, 1, 3)]
    with pytest.raises(DataError, match=f"{cache.shards[0].data} is missing; run the job again"):
        TokenLookup(directory, cache.shards).read(*asked)


def tokens_to_ask(count: int) -> np.ndarray:
    """Return (shard, sample, position) of some tokens in random order, some of them twice."""
    everything = [
        (shard, sample, position)
        for shard, lengths in enumerate(LENGTHS)
        for sample, n in enumerate(lengths)
        for position in range(n)
    ]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(everything), count)
    asked = [everything[i] for i in drawn] + everything[:2] + everything[-6:]
    return np.array(asked + asked[:3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("where", ["local", "bucket"])
@pytest.mark.parametrize("count", [20, 1000])
def test_tokens_are_found_to_the_bit(  # noqa: PLR0917 - the parameters of the grid
    tmp_path: Path, small_batches: None, dtype: str, compression: str, where: str, count: int
) -> None:
    directory = at(tmp_path) if where == "local" else Directory(fake_backend(Store()))
    cache = Cache(directory, dtype, compression=compression)
    asked = tokens_to_ask(count)
    found = TokenLookup(directory, cache.shards).read(*asked.T)
    assert found.dtype == next(iter(cache.batches.values())).acts_nd.dtype
    for act_d, (shard, sample, position) in zip(found, asked.tolist(), strict=True):
        assert bits(act_d) == bits(cache.batches[shard, sample].acts_nd[position])


def test_from_a_bucket_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    store, read = Store(), []
    writing = Directory(fake_backend(store))
    cache = Cache(writing, "float32")
    bucket = Directory(fake_backend(store, lambda name, path: read.append((name, path))))
    look = TokenLookup(bucket, cache.shards)
    look.read(np.array([0, 0, 0]), np.array([1, 1, 3]), np.array([2000, 5, 16]))
    of_tokens = [name for name, path in read if path.endswith(cache.shards[0].data)]
    assert of_tokens == ["get"] * 3
    assert not (tmp_path / "copies").exists()
    read.clear()
    look.read(np.array([0]), np.array([1]), np.array([7]))  # the index is known by now
    assert [name for name, _ in read] == ["get"]


def test_for_many_tokens_the_shard_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MAX_RANGES", 10)
    store, read = Store(), []
    cache = Cache(Directory(fake_backend(store)), "float32")
    bucket = Directory(fake_backend(store, lambda name, path: read.append((name, path))))
    look = TokenLookup(bucket, cache.shards)
    positions = np.arange(11)
    for _ in range(2):
        look.read(np.zeros(11, np.int64), np.ones(11, np.int64), positions)
    gets = [path for name, path in read if name == "get" and path.endswith(cache.shards[0].data)]
    assert len(gets) == 1


def test_positions_of_a_sample(tmp_path: Path) -> None:
    cache = Cache(at(tmp_path), "float32")
    look = TokenLookup(at(tmp_path), cache.shards)
    look = pickle.loads(pickle.dumps(look))
    assert look.positions(0, np.int32(1)).tolist() == list(range(2928))  # type: ignore[arg-type]
    assert look.positions(0, 2).tolist() == []
    assert look.positions(2, 0).tolist() == list(range(5))


@pytest.mark.parametrize("token", [(0, 1, 2928), (0, 2, 0), (0, 4, 0), (1, 0, 0), (3, 0, 1)])
def test_tokens_that_are_not_there_are_named(tmp_path: Path, token: tuple[int, int, int]) -> None:
    cache = Cache(at(tmp_path), "float32")
    asked = np.array([(0, 0, 0), token])
    with pytest.raises(IndexError, match=f"sample {token[1]} at position {token[2]}"):
        TokenLookup(at(tmp_path), cache.shards).read(*asked.T)


def test_tokens_that_were_dropped_are_named(tmp_path: Path) -> None:
    settings = CacheSettings(tokens_per_sample=10)
    writer = ShardWriter(at(tmp_path), "s", 3, "float32", settings)
    batch = token_batch(40, 3)
    writer.add(0, "a", 0, batch)
    look = TokenLookup(at(tmp_path), [writer.finish().shard])
    kept = look.positions(0, 0)
    assert len(kept) == 10
    found = look.read(np.zeros(10, np.int64), np.zeros(10, np.int64), kept)
    assert bits(found) == bits(batch.acts_nd[kept])
    lost = min(set(range(40)) - set(kept.tolist()))
    with pytest.raises(IndexError, match=f"position {lost}: there is none, or it was not kept"):
        look.read(np.array([0]), np.array([0]), np.array([lost]))


def test_marks_describe_shards(tmp_path: Path) -> None:
    cache = Cache(at(tmp_path), "bfloat16")
    for shard in cache.shards:
        assert CachedShard.of_mark({"cached": shard.to_json()}, "x") == shard
    with pytest.raises(DataError, match=r"x\.done\.json does not describe a shard"):
        CachedShard.of_mark({"cached": {"data": "a"}}, "x.done.json")
    with pytest.raises(DataError, match="does not describe"):
        CachedShard.of_mark({}, "x.done.json")


def test_the_shards_of_a_cache_are_those_with_marks(tmp_path: Path) -> None:
    cache = Cache(at(tmp_path), "float32")
    for number in (3, 0, 1):
        mark = {"cached": cache.shards[number].to_json(), "files": []}
        at(tmp_path).put_json(f"shard-{number:05d}.done.json", mark)
    shards = [cache.shards[number] for number in (0, 1, 3)]
    at(tmp_path).put_json("metadata.json", {"data_files": [shard.data for shard in shards]})
    assert cached_shards(at(tmp_path)) == shards
    (tmp_path / "shard-00001.done.json").unlink()
    with pytest.raises(DataError, match="is not finished, or lacks shards"):
        cached_shards(at(tmp_path))
    (tmp_path / "metadata.json").unlink()
    with pytest.raises(DataError, match="is not finished, or lacks shards"):
        cached_shards(at(tmp_path))
    (tmp_path / "shard-00000.done.json").write_text("{")
    with pytest.raises(DataError, match=r"shard-00000\.done\.json"):
        cached_shards(at(tmp_path))
