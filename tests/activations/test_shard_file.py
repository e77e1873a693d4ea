from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysae.activations.buffer import TokenColumns
from raysae.activations.shard_file import write_samples_file, write_token_file
from tests.reference import activations as reference


def columns_of(n: int) -> TokenColumns:
    numbers = np.arange(n, dtype=np.int32)
    return TokenColumns(numbers, numbers + 100, numbers + 200, (numbers % 3).astype(np.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_are_gathered_in_the_given_order(tmp_path: Path, dtype: torch.dtype) -> None:
    acts_nd = torch.arange(12, dtype=dtype).reshape(4, 3)
    write_token_file(tmp_path / "x", columns_of(3), acts_nd, np.array([3, 0, 2]))
    rows = reference.read_cache(tmp_path / "x")
    assert [row["activation"] for row in rows] == [[9, 10, 11], [0, 1, 2], [6, 7, 8]]
    assert [row["token_id"] for row in rows] == [200, 201, 202]


def test_samples_file_is_checked_against_its_schema(tmp_path: Path) -> None:
    columns = {name: [1] for name in ("ordinal", "tokens", "text_tokens", "image_tokens")}
    with pytest.raises(KeyError):
        write_samples_file(tmp_path / "x", columns)
    write_samples_file(tmp_path / "x", {"sample_id": ["a"], **columns, "kept_tokens": [1]})
    with pa.OSFile(str(tmp_path / "x")) as file:
        assert pa.ipc.open_stream(file).read_all().num_rows == 1
