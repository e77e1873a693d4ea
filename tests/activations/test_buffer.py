from __future__ import annotations

import numpy as np
import pytest
import torch

from raysae.activations.buffer import ActivationBuffer, Memory, TokenColumns
from tests.activations.caches import DTYPES, bits, token_batch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bound", [1 << 30, 1])
def test_rows_stay_as_appended(monkeypatch: pytest.MonkeyPatch, dtype: str, bound: int) -> None:
    monkeypatch.setattr("raysae.activations.buffer.MAX_SHARD_BYTES", bound)
    parts = [token_batch(n, 3, dtype, n).acts_nd for n in (4, 0, 1, 30)]
    buffer = ActivationBuffer(3, dtype, Memory())
    for part in parts:
        buffer.append(part)
    assert len(buffer) == 35
    assert buffer.acts_nd.dtype == parts[0].dtype
    assert bits(buffer.acts_nd) == bits(torch.cat(parts))


def test_columns_take() -> None:
    numbers = np.arange(5, dtype=np.int32)
    columns = TokenColumns(*[numbers] * 3, np.zeros(5, np.uint8), numbers.astype(np.float32))
    taken = columns.take(np.array([3, 0, 3]))
    assert taken.position_n.tolist() == [3, 0, 3]
    assert taken.modality_n.dtype == np.uint8
    assert taken.norm_n.tolist() == [3, 0, 3]
