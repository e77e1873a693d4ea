from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysae.activations import CacheReader, CacheSettings
from raysae.activations.collected import OrderedTokens, ShardTokens
from raysae.activations.parts import ShardInMemory, n_parts, shard_parts
from raysae.activations.reader import gathered, room_for
from raysae.errors import DataError
from tests.activations.caches import DTYPES, bits, token_batch, write_shard
from tests.storages import at


def collected(sizes: list[int], dtype: str = "float32", d_in: int = 6) -> OrderedTokens:
    """Return the tokens of samples of some sizes, in the order of writing."""
    tokens = ShardTokens("shard-00000", d_in, dtype, CacheSettings())
    for index, n in enumerate(sizes):
        tokens.add(index, f"id-{index}", 100 + index, token_batch(n, d_in, dtype, index))
    return tokens.in_order()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_bytes", [1, 200, 1 << 20])
def test_parts_hold_what_the_token_file_holds(tmp_path: Path, dtype: str, max_bytes: int) -> None:
    batches = [token_batch(n, 6, dtype, index) for index, n in enumerate([5, 1, 9])]
    files = write_shard(tmp_path, batches)
    tokens = collected([5, 1, 9], dtype)
    parts = list(shard_parts(tokens, max_bytes))
    assert len(parts) == n_parts(tokens, max_bytes)
    shard = ShardInMemory(3, parts, "shard-00003")
    assert (shard.rows, shard.d_in, shard.dtype) == (15, 6, dtype)
    expected = CacheReader(at(tmp_path), [files.shard.data]).read_rows(0, np.arange(15))
    every = np.arange(15)
    found = gathered(np.full(15, 3), every, lambda _: shard, room_for(15, 6, dtype), dtype)
    assert bits(found.acts_nd) == bits(expected.acts_nd)
    for name in ("modality_n", "sample_n", "position_n", "token_id_n", "norm_n"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_some_rows_are_gathered_over_the_edges_of_parts() -> None:
    tokens = collected([12])
    shard = ShardInMemory(0, list(shard_parts(tokens, 1)), "x")
    row_n = np.array([0, 4, 4, 5, 11])
    found = gathered(
        np.zeros(5, np.int64), row_n, lambda _: shard, room_for(5, 6, "float32"), "float32"
    )
    np.testing.assert_array_equal(found.token_id_n, tokens.columns.token_id_n[row_n])


def test_a_shard_without_tokens_is_one_part_without_rows() -> None:
    (part,) = shard_parts(collected([0]))
    assert n_parts(collected([0])) == 1
    assert ShardInMemory(0, [part], "x").rows == 0


def test_a_part_that_was_cut_short_is_named() -> None:
    (part,) = shard_parts(collected([3]))
    with pytest.raises(DataError, match=r"^shard-00007 was cut short"):
        ShardInMemory(7, [pa.py_buffer(part.to_pybytes()[:-8])], "shard-00007")
