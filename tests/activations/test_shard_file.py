from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysae.activations.buffer import ActivationBuffer, Memory, TokenColumns
from raysae.activations.collected import OrderedTokens
from raysae.activations.format import SAMPLES_SCHEMA, Compression, dtype_name
from raysae.activations.shard_file import write_samples_file, write_token_file
from tests.activations.caches import DTYPES, bits, token_batch
from tests.reference import activations as reference


def ordered(acts_nd: torch.Tensor, source_m: list[int]) -> OrderedTokens:
    """Return tokens in the order of `source_m`, their ids counted from 200."""
    numbers = np.arange(len(source_m), dtype=np.int32)
    columns = TokenColumns(
        numbers,
        numbers + 100,
        numbers + 200,
        (numbers % 3).astype(np.uint8),
        numbers.astype(np.float32) / 2,
    )
    buffer = ActivationBuffer(acts_nd.shape[1], dtype_name(acts_nd.dtype), Memory())
    buffer.append(acts_nd)
    return OrderedTokens(columns, buffer, np.array(source_m), SAMPLES_SCHEMA.empty_table())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_rows_are_gathered_in_the_given_order(tmp_path: Path, dtype: torch.dtype) -> None:
    acts_nd = torch.arange(12, dtype=dtype).reshape(4, 3)
    with (tmp_path / "x").open("wb") as file:
        write_token_file(file, ordered(acts_nd, [3, 0, 2]))
    rows = reference.read_cache(tmp_path / "x")
    assert [row["activation"] for row in rows] == [[9, 10, 11], [0, 1, 2], [6, 7, 8]]
    assert [row["token_id"] for row in rows] == [200, 201, 202]
    assert [row["norm"] for row in rows] == [0, 0.5, 1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 7, 64, 65])
def test_offsets_are_those_of_the_hidden_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, rows: int
) -> None:
    """Every hidden state lies where the layout says, found by arithmetic alone."""
    monkeypatch.setattr("raysae.activations.shard_file.MAX_BATCH_BYTES", 300)
    acts_nd = token_batch(rows, 5, dtype).acts_nd
    order = list(reversed(range(rows)))
    with (tmp_path / "x").open("wb") as file:
        layout = write_token_file(file, ordered(acts_nd, order))
    content = (tmp_path / "x").read_bytes()
    width = 5 * acts_nd.element_size()
    for row, source in enumerate(order):
        start = layout.offsets[row // layout.batch_rows] + row % layout.batch_rows * width
        assert content[start : start + width] == bits(acts_nd[source])


def sizes_of(directory: Path, compression: Compression, acts_nd: torch.Tensor) -> int:
    path = directory / compression
    with path.open("wb") as file:
        layout = write_token_file(file, ordered(acts_nd, list(range(len(acts_nd)))), compression)
    assert bool(layout.offsets) == (compression == "none")
    return path.stat().st_size


def test_compressed_files_say_so_and_are_smaller(tmp_path: Path) -> None:
    acts_nd = torch.randn(500, 16).to(torch.bfloat16)
    assert sizes_of(tmp_path, "zstd", acts_nd) < 0.95 * sizes_of(tmp_path, "none", acts_nd)
    with pa.OSFile(str(tmp_path / "zstd")) as file:
        assert pa.ipc.open_stream(file).schema.metadata[b"compression"] == b"zstd"
    plain, packed = (reference.read_cache(tmp_path / name) for name in ("none", "zstd"))
    assert plain == packed


def test_samples_are_written_whole(tmp_path: Path) -> None:
    samples = pa.table(
        {
            "sample_id": ["a"],
            "ordinal": [7],
            **{name: [3] for name in ("tokens", "text_tokens", "image_tokens", "kept_tokens")},
            "kept_positions": [[0, 1, 2]],
            "kept_rows": [[2, 0, 1]],
        },
        schema=SAMPLES_SCHEMA,
    )
    write_samples_file(tmp_path / "x", samples)
    with pa.OSFile(str(tmp_path / "x")) as file:
        assert pa.ipc.open_stream(file).read_all().equals(samples, check_metadata=True)
