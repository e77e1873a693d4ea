from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from raysae.activations import Memory
from raysae.activations.buffer import TokenColumns
from raysae.activations.record_batches import one_ahead, record_batches, rows_in_batch
from tests.activations.caches import DTYPES, bits, token_batch


def batches_of(
    acts_nd: torch.Tensor, order: list[int], memory: Memory
) -> AbstractContextManager[Iterator[pa.RecordBatch]]:
    """Gather rows into batches of four."""
    numbers = np.arange(len(order), dtype=np.int32)
    columns = TokenColumns(*[numbers] * 3, np.zeros(len(order), np.uint8), numbers.astype("f4"))
    row = acts_nd.shape[1] * acts_nd.element_size() + 17
    return record_batches(columns, acts_nd, np.array(order), 4 * row, memory=memory)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_is_not_overwritten_while_the_next_one_is_made(dtype: str) -> None:
    acts_nd = token_batch(21, 3, dtype).acts_nd
    order = list(np.random.default_rng(0).permutation(21))
    seen = b""
    with batches_of(acts_nd, order, Memory()) as batches:
        for batch in one_ahead(batches):
            seen += batch.column("activation").flatten().to_numpy().tobytes()
            rows = rows_in_batch(3, dtype, 4 * (3 * acts_nd.element_size() + 17))
            assert batch.num_rows <= rows == 4
    assert seen == bits(acts_nd[torch.tensor(order)])


@pytest.mark.parametrize("rows", [3, 8])
def test_no_other_shard_gets_the_memory_of_the_last_batch_while_it_is_in_use(rows: int) -> None:
    acts_nd = token_batch(rows, 3, "float32").acts_nd
    order = list(range(rows))
    memory, lengths = Memory(), []
    with batches_of(acts_nd, order, memory) as batches:
        for batch in one_ahead(batches):
            # The thread that makes the next one has found that there is none.
            time.sleep(0.05)
            with batches_of(torch.zeros(4, 3), list(range(4)), memory) as others:
                assert sum(other.num_rows for other in others) == 4
            held = batch.column("activation").flatten().to_numpy()
            start = sum(lengths)
            assert held.tobytes() == bits(acts_nd[start : start + batch.num_rows])
            lengths.append(batch.num_rows)
    assert sum(lengths) == rows
    # Both shards' memory is there for the next ones.
    block = 2 * 4 * 3 * 4
    left = [memory.take(block).ctypes.data for _ in range(2)]
    assert len(set(left)) == 2


def test_what_an_error_leaves_in_use_is_not_given_back() -> None:
    class Counted(Memory):
        given_back = 0

        def give_back(self, block: npt.NDArray[np.uint8]) -> None:
            self.given_back += 1
            super().give_back(block)

    memory = Counted()
    acts_nd = token_batch(8, 3, "float32").acts_nd

    def fail() -> None:
        with batches_of(acts_nd, list(range(8)), memory) as batches:
            next(batches)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert memory.given_back == 0


def test_an_error_in_the_middle_arrives_and_ends_the_thread() -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"a": [1]})
        raise ZeroDivisionError

    before = set(threading.enumerate())
    taken = []
    with pytest.raises(ZeroDivisionError):
        taken.extend(one_ahead(broken()))
    assert set(threading.enumerate()) <= before
    for batch in one_ahead(iter([pa.record_batch({"a": [1]})] * 3)):
        assert batch.num_rows == 1
        break
