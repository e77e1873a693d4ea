"""The pool of hidden states and the keys of its tokens."""

import numpy as np
import pytest
import torch

from raysae.errors import DataError
from raysae.scoring import pool as module
from raysae.scoring.pool import TokenPool, key_ordinals, key_positions, token_keys
from tests.sae.peak_memory import run_alone


def filled(sizes: list[int]) -> TokenPool:
    pool = TokenPool(3)
    for size in sizes:
        rows = np.arange(len(pool), len(pool) + size)
        acts = torch.from_numpy(rows)[:, None] * torch.ones(3)
        pool.append(rows, rows.astype(np.int32), (rows % 2).astype(np.uint8), acts)
    return pool


def test_keys_sort_as_pairs_do_and_come_apart() -> None:
    ordinals = np.array([0, 0, 1, 2**39 - 1], dtype=np.int64)
    positions = np.array([0, 2**24 - 1, 0, 5], dtype=np.int32)
    keys = token_keys(ordinals, positions)
    assert (np.diff(keys) > 0).all()
    np.testing.assert_array_equal(key_ordinals(keys), ordinals)
    np.testing.assert_array_equal(key_positions(keys), positions)


@pytest.mark.parametrize(
    ("ordinal", "position", "name"),
    [(-1, 0, "ordinal"), (2**39, 0, "ordinal"), (0, -1, "position"), (0, 2**24, "position")],
)
def test_keys_out_of_range(ordinal: int, position: int, name: str) -> None:
    with pytest.raises(DataError, match=name):
        token_keys(np.array([ordinal]), np.array([position], dtype=np.int32))


@pytest.mark.parametrize("as_one", [False, True])
@pytest.mark.parametrize("rows_per_chunk", [1, 2, 1000])
@pytest.mark.parametrize("sizes", [[], [4], [1, 0, 5, 2], [3, 3, 3]])
def test_take_keeps_rows_in_the_order_given(
    sizes: list[int], rows_per_chunk: int, as_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_CHUNK_BYTES", "_BLOCK_BYTES"):
        monkeypatch.setattr(module, name, rows_per_chunk * 3 * 4)
    pool = filled(sizes)
    rows = np.random.default_rng(0).permutation(len(pool))[: len(pool) // 2 + 1].astype(np.int64)
    pool.take(rows, as_one=as_one)
    assert pool.acts_pd()[:, 0].tolist() == rows.tolist()
    for column in (pool.key_p, pool.token_id_p):
        assert column.tolist() == rows.tolist()
    assert pool.side_p.tolist() == (rows % 2).tolist()


@pytest.mark.parametrize("as_one", [False, True])
def test_taking_everything_in_order_changes_nothing(as_one: bool) -> None:
    pool = filled([2, 3])
    pool.take(np.arange(5), as_one=as_one)
    assert pool.acts_pd()[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert pool.key_p.tolist() == [0, 1, 2, 3, 4]
    assert (pool.acts_pd().data_ptr() == pool.acts_pd().data_ptr()) == as_one


PEAK_OF_TAKING = """
import sys, numpy as np, torch
from raysae.scoring.pool import TokenPool
from tests.sae.peak_memory import peak_bytes
pool, d_in, rows = TokenPool(4096), 4096, 256
for start in range(0, 128 * rows, rows):
    column = np.arange(start, start + rows)
    acts = torch.ones((rows, d_in), dtype=torch.bfloat16)
    pool.append(column, column.astype(np.int32), (column % 2).astype(np.uint8), acts)
before = peak_bytes()
kept = np.flatnonzero(np.arange(len(pool)) % 3 < 2)
if sys.argv[1] == "shuffled":
    kept = np.random.default_rng(0).permutation(kept)
pool.take(kept, as_one=sys.argv[1] != "compacted")
print(peak_bytes() - before)
"""


@pytest.mark.parametrize("kind", ["compacted", "in-order", "shuffled"])
def test_taking_releases_while_it_fills(kind: str) -> None:
    (grown,) = run_alone(PEAK_OF_TAKING, kind)
    assert grown < 0.35 * (2 / 3) * 128 * 256 * 4096 * 2


def test_absorb_shares_and_does_not_change_the_other() -> None:
    one, other = filled([2, 1]), filled([3])
    one.absorb(other)
    one.take(np.array([5, 0]))
    assert one.acts_pd()[:, 0].tolist() == [2.0, 0.0]
    assert other.acts_pd()[:, 0].tolist() == [0.0, 1.0, 2.0]


def test_refuses_another_width_or_dtype() -> None:
    pool = filled([1])
    column = np.zeros(1, dtype=np.int64)
    rest = (column, column.astype(np.int32), column.astype(np.uint8))
    with pytest.raises(DataError, match="shape"):
        pool.append(*rest, torch.ones(1, 4))
    with pytest.raises(DataError, match="one dtype"):
        pool.append(*rest, torch.ones(1, 3).half())
