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


def test_checksum_sees_every_byte_and_every_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysae.activations.shard_file.MAX_BATCH_BYTES", 60)

    def checksum(acts_nd: torch.Tensor) -> int:
        order_n = np.arange(len(acts_nd))
        return write_token_file(tmp_path / "x", columns_of(len(acts_nd)), acts_nd, order_n)

    acts_nd = torch.arange(21, dtype=torch.float16).reshape(7, 3)
    seen = {checksum(acts_nd), checksum(acts_nd.flip(0)), checksum(acts_nd[:6])}
    for byte in range(42):
        changed_nd = acts_nd.clone()
        changed_nd.view(torch.uint8).view(-1)[byte] += 1
        seen.add(checksum(changed_nd))
    assert len(seen) == 45
    assert checksum(acts_nd) in seen
    assert all(0 <= value < 1 << 64 for value in seen)


def test_samples_file_is_checked_against_its_schema(tmp_path: Path) -> None:
    columns = {name: [1] for name in ("ordinal", "tokens", "text_tokens", "image_tokens")}
    with pytest.raises(KeyError):
        write_samples_file(tmp_path / "x", columns)
    write_samples_file(tmp_path / "x", {"sample_id": ["a"], **columns, "kept_tokens": [1]})
    with pa.OSFile(str(tmp_path / "x")) as file:
        assert pa.ipc.open_stream(file).read_all().num_rows == 1
