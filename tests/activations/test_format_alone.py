"""A cache read with pyarrow and numpy alone, by docs/activation-cache.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysae.activations import CacheSettings, ShardWriter
from raysae.artifacts.marks import write_mark
from tests.activations.caches import DTYPES, token_batch
from tests.storages import at

LENGTHS = [[5, 1, 2928, 0], [], [30]]
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Alone:
    """What the page says, and nothing of raysae.

    Args:
        cache: The directory.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.marks = [json.loads(path.read_bytes()) for path in sorted(cache.glob("*.done.json"))]

    def stream(self, name: str) -> pa.Table:
        content = (self.cache / name).read_bytes()
        assert content.endswith(bytes.fromhex("FFFFFFFF00000000"))
        table = pa.ipc.open_stream(content).read_all()
        assert table.schema.metadata[b"raysae_activation_cache"] == b"2"
        return table

    def tokens(self, mark: dict[str, Any]) -> dict[tuple[str, int], np.ndarray]:
        """(sample id, position) → the hidden state's numbers, float64."""
        table = self.stream(mark["cached"]["data"])
        samples = self.stream(mark["cached"]["samples"])
        field = table.schema.field("activation")
        compression = table.schema.metadata.get(b"compression", b"none").decode()
        assert compression == mark["cached"]["compression"]
        states = []
        for batch in table.to_batches():
            flat = batch.column("activation").flatten().to_numpy()
            states.append(self.numbers(flat.reshape(-1, field.type.list_size), field.metadata))
        acts_nd = np.concatenate([np.empty((0, field.type.list_size)), *states])
        ids = samples.column("sample_id").to_pylist()
        norms = table.column("norm").to_numpy()
        np.testing.assert_allclose(np.linalg.norm(acts_nd, axis=1), norms, rtol=1e-4)
        return {
            (ids[sample], position): act_d
            for sample, position, act_d in zip(
                table.column("sample").to_pylist(),
                table.column("position").to_pylist(),
                acts_nd,
                strict=True,
            )
        }

    @staticmethod
    def numbers(stored: np.ndarray, metadata: dict[bytes, bytes]) -> np.ndarray:
        if metadata[b"dtype"] == b"bfloat16":
            return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return stored.astype(np.float64)

    def one(self, mark: dict[str, Any], sample: int, position: int) -> np.ndarray:
        """Return one hidden state by the index and the offsets, a range of bytes."""
        about = mark["cached"]
        row_of = self.stream(about["samples"]).slice(sample, 1).to_pylist()[0]
        row = row_of["kept_rows"][row_of["kept_positions"].index(position)]
        size = BYTES[about["dtype"]]
        start = (
            about["offsets"][row // about["batch_rows"]]
            + row % about["batch_rows"] * about["d_in"] * size
        )
        with (self.cache / about["data"]).open("rb") as file:
            file.seek(start)
            content = file.read(about["d_in"] * size)
        stored = np.frombuffer(
            content, {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}[about["dtype"]]
        )
        return self.numbers(stored, {b"dtype": about["dtype"].encode()})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_cache_is_read_by_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, compression: str
) -> None:
    monkeypatch.setattr("raysae.activations.shard_file.MAX_BATCH_BYTES", 5000)
    written: dict[tuple[str, int], torch.Tensor] = {}
    for shard, lengths in enumerate(LENGTHS):
        name = f"shard-{shard:05d}"
        writer = ShardWriter(
            at(tmp_path),
            name,
            7,
            dtype,
            CacheSettings(),
            compression=compression,  # type: ignore[arg-type]
        )
        for sample, n in enumerate(lengths):
            batch = token_batch(n, 7, dtype)
            batch.acts_nd[:] = torch.randn(n, 7).to(batch.acts_nd.dtype)
            writer.add(sample, f"id-{shard}-{sample}", sample, batch)
            written |= {(f"id-{shard}-{sample}", at_): batch.acts_nd[at_] for at_ in range(n)}
        files = writer.finish()
        write_mark(at(tmp_path), name, files.records, {"cached": files.shard.to_json()})
    alone = Alone(tmp_path)
    read = {key: value for mark in alone.marks for key, value in alone.tokens(mark).items()}
    assert read.keys() == written.keys()
    for key, act_d in written.items():
        assert read[key].tolist() == act_d.double().tolist()
    if compression == "none":
        for mark, sample, position in ((0, 0, 4), (0, 1, 0), (0, 2, 2927), (2, 0, 13)):
            found = alone.one(alone.marks[mark], sample, position)
            assert found.tolist() == written[f"id-{mark}-{sample}", position].double().tolist()
    assert [len(mark["cached"]["offsets"]) > 0 for mark in alone.marks] == [
        compression == "none",
        False,
        compression == "none",
    ]
