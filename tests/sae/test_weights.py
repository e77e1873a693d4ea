"""Rows are cut into bounded parts, and a unit row keeps its length to first order."""

import pytest
import torch

from raysae.sae.weights import Weights, remove_parallel_part, row_chunks


@pytest.mark.parametrize(("rows", "columns"), [(1, 8192), (4096, 8192), (4097, 65_536), (5, 2**30)])
def test_chunks_cover_all_rows_once(rows: int, columns: int) -> None:
    chunks = row_chunks(rows, columns, torch.device("cpu"))
    covered = [row for chunk in chunks for row in range(chunk.start, chunk.stop)]
    assert covered == list(range(rows))
    largest = max(chunk.stop - chunk.start for chunk in chunks)
    assert largest == chunks[0].stop
    assert largest <= max(64, 2**23 // columns)


def test_no_rows_no_chunks() -> None:
    assert row_chunks(0, 10, torch.device("cpu")) == []


def test_parallel_part_is_removed() -> None:
    unit_fd = torch.nn.functional.normalize(torch.randn(7, 3, dtype=torch.float64))
    gradient_fd = torch.randn(7, 3, dtype=torch.float64)
    expected = torch.stack([g - (g @ u) * u for g, u in zip(gradient_fd, unit_fd, strict=True)])
    remove_parallel_part(gradient_fd, unit_fd)
    torch.testing.assert_close(gradient_fd, expected)


def test_add() -> None:
    weights = Weights(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2), torch.ones(3))
    weights.add_(weights)
    assert [float(tensor.sum()) for tensor in weights.tensors()] == [12, 12, 4, 6]
