"""How well the cache is shuffled: counts, beside what the mixing window itself must give.

A batch is a random draw, without replacement, of a window of `mix_shards` shards. So of a window of
N tokens, n of them of some group (a shard, a sample), a batch of B has B·n/N of the group in the
mean, with the variance B·n/N·(1-n/N)·(N-B)/(N-1) of the hypergeometric distribution.
"""

from __future__ import annotations

import numpy as np
import pytest

from raysae.activations import CacheReader, ReadingOrder
from tests.activations.caches import token_batch, write_shard
from tests.storages import at

SHARDS, SAMPLES, TOKENS = 12, 8, 60
MIX = 3
WINDOW = MIX * SAMPLES * TOKENS
BATCH = 96
SEEDS = 60


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> CacheReader:
    directory = tmp_path_factory.mktemp("cache")
    names = [
        write_shard(
            directory,
            [token_batch(TOKENS, 2, seed=SAMPLES * shard + one) for one in range(SAMPLES)],
            name=f"shard-{shard:05d}",
        ).shard.data
        for shard in range(SHARDS)
    ]
    return CacheReader(at(directory), names)


def expected(group: int) -> tuple[float, float]:
    """Mean and variance of how many of a group are in a batch, by the hypergeometric formula."""
    share = group / WINDOW
    mean = BATCH * share
    return mean, mean * (1 - share) * (WINDOW - BATCH) / (WINDOW - 1)


def draws(reader: CacheReader) -> np.ndarray:
    """Return, for many batches of whole windows, (shard, sample) counts: (batches, S, s)."""
    per_window = WINDOW // BATCH
    counts = []
    for seed in range(SEEDS):
        order = ReadingOrder(reader.shard_rows, seed, MIX)
        for window in range(SHARDS // MIX):
            for step in (0, per_window // 2, per_window - 1):
                shard_n, row_n = order.rows(window * per_window + step, BATCH)
                sample_n = np.concatenate(
                    [reader.read_rows(s, row_n[shard_n == s]).sample_n for s in np.unique(shard_n)]
                )
                table = np.zeros((SHARDS, SAMPLES))
                np.add.at(table, (np.sort(shard_n), sample_n), 1)
                counts.append(table)
    return np.array(counts)


def test_groups_come_as_often_as_the_window_lets_them(reader: CacheReader) -> None:
    counts_bst = draws(reader)
    of_shards_bs = counts_bst.sum(2)
    assert ((of_shards_bs > 0).sum(1) == MIX).all()
    for counts, group in (
        (of_shards_bs[of_shards_bs > 0], SAMPLES * TOKENS),
        (counts_bst[of_shards_bs > 0].ravel(), TOKENS),
    ):
        _, variance = expected(group)
        # The variance' own spread is about √(2/n) of it; a better or a worse shuffle shows here.
        assert counts.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / len(counts)))


def test_tokens_of_a_sample_meet_no_more_often_than_by_chance(reader: CacheReader) -> None:
    """Pairs of a sample's tokens in a batch: B(B-1)/2 · (n-1)/(N-1) of all pairs."""
    counts_bst = draws(reader)
    pairs_b = (counts_bst * (counts_bst - 1) / 2).sum((1, 2))
    chance = BATCH * (BATCH - 1) / 2 * (TOKENS - 1) / (WINDOW - 1)
    assert pairs_b.mean() == pytest.approx(chance, abs=5 * pairs_b.std() / np.sqrt(len(pairs_b)))


def test_neighbours_in_the_text_are_no_neighbours_in_batches(reader: CacheReader) -> None:
    """In file order, one token's position says nothing of the next one's."""
    position_n = reader.read_rows(0, range(SAMPLES * TOKENS)).position_n
    sample_n = reader.read_rows(0, range(SAMPLES * TOKENS)).sample_n
    neighbours = (np.diff(sample_n) == 0) & (np.abs(np.diff(position_n)) == 1)
    n = SAMPLES * TOKENS
    chance = SAMPLES * (TOKENS - 1) * 2 / n
    assert neighbours.sum() == pytest.approx(chance, abs=5 * np.sqrt(chance))


def test_an_order_that_mixes_less_is_found_out(reader: CacheReader) -> None:
    """The variance above tells windows apart: drawn from one shard each, batches exceed it."""
    counts = []
    for seed in range(SEEDS):
        order = ReadingOrder(reader.shard_rows, seed, 1)
        shard_n = order.rows(0, BATCH)[0]
        counts += [*np.bincount(shard_n)[np.unique(shard_n)].tolist(), 0, 0]
    _, variance = expected(SAMPLES * TOKENS)
    assert np.var(counts) > 20 * variance
