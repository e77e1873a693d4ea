from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysae.activations.buffer import Memory, TokenColumns
from raysae.activations.record_batches import one_ahead, record_batches, rows_in_batch
from tests.activations.caches import DTYPES, bits, token_batch


def batches_of(acts_nd: torch.Tensor, order: list[int]) -> Iterator[pa.RecordBatch]:
    """Gather rows into batches of four."""
    numbers = np.arange(len(order), dtype=np.int32)
    columns = TokenColumns(*[numbers] * 3, np.zeros(len(order), np.uint8), numbers.astype("f4"))
    row = acts_nd.shape[1] * acts_nd.element_size() + 17
    return record_batches(columns, acts_nd, np.array(order), 4 * row, memory=Memory())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_is_not_overwritten_while_the_next_one_is_made(dtype: str) -> None:
    acts_nd = token_batch(21, 3, dtype).acts_nd
    order = list(np.random.default_rng(0).permutation(21))
    seen = b""
    for batch in one_ahead(batches_of(acts_nd, order)):
        seen += batch.column("activation").flatten().to_numpy().tobytes()
        assert batch.num_rows <= rows_in_batch(3, dtype, 4 * (3 * acts_nd.element_size() + 17)) == 4
    assert seen == bits(acts_nd[torch.tensor(order)])


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
