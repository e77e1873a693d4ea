from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from raysae.activations import (
    CacheReader,
    CacheSettings,
    Memory,
    ShardWriter,
    collected,
    read_samples,
)
from raysae.activations.format import SAMPLES_SCHEMA
from raysae.artifacts.appending import AppendedFile
from raysae.errors import SettingsError
from raysae.sample import TokenBatch
from tests.activations.caches import DTYPES, bits, token_batch, write_shard
from tests.reference import activations as reference
from tests.storages import at

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_token_is_written_once_to_the_bit(tmp_path: Path, dtype: str) -> None:
    lengths = [1, 2928, 0, 17, 1]
    batches = [token_batch(n, 6, dtype, seed) for seed, n in enumerate(lengths)]
    files = write_shard(tmp_path, batches)
    assert files.shard.rows == sum(lengths)
    tokens = CacheReader(at(tmp_path), [files.shard.data]).read_rows(0, np.arange(files.shard.rows))
    assert tokens.acts_nd.dtype == batches[0].acts_nd.dtype
    order = np.lexsort((tokens.position_n, tokens.sample_n))
    assert tokens.sample_n[order].tolist() == np.repeat(np.arange(5), lengths).tolist()
    assert bits(tokens.acts_nd[order]) == b"".join(bits(batch.acts_nd) for batch in batches)
    for name in ("position_n", "token_id_n", "modality_n"):
        added = np.concatenate([getattr(batch, name) for batch in batches])
        assert np.array_equal(getattr(tokens, name)[order], added)


def test_tokens_are_permuted(tmp_path: Path) -> None:
    files = write_shard(tmp_path, [token_batch(500, 2, seed=seed) for seed in range(4)])
    rows = reference.read_cache(tmp_path / files.shard.data)
    place = np.array([row["sample"] * 500 + row["position"] for row in rows])
    assert sorted(place) == list(range(2000))
    # Neighbours in the file are strangers, and places say nothing about origins.
    assert np.count_nonzero(np.abs(np.diff(place)) == 1) < 20
    assert abs(np.corrcoef(place, np.arange(2000))[0, 1]) < 4 / math.sqrt(2000)


def test_files_do_not_depend_on_the_order_of_adding(tmp_path: Path) -> None:
    batches = [token_batch(n, 3, seed=n) for n in (5, 1, 9)]
    one = write_shard(tmp_path / "a", batches)
    other = write_shard(tmp_path / "b", batches, order=[2, 0, 1])
    assert one == other
    for name in (one.shard.data, one.shard.samples):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("change", ["seed", "name"])
def test_permutation_depends_on_seed_and_shard_name(tmp_path: Path, change: str) -> None:
    batches = [token_batch(50, 2)]
    one = write_shard(tmp_path, batches)
    other = (
        write_shard(tmp_path, batches, settings=CacheSettings(seed=1))
        if change == "seed"
        else write_shard(tmp_path, batches, name="shard-00001")
    )
    positions = [
        [row["position"] for row in reference.read_cache(tmp_path / files.shard.data)]
        for files in (one, other)
    ]
    assert positions[0] != positions[1]
    assert sorted(positions[0]) == sorted(positions[1])


def test_name_changes_with_a_single_bit(tmp_path: Path) -> None:
    batch = token_batch(9, 3, "bfloat16")
    first = write_shard(tmp_path, [batch])
    again = write_shard(tmp_path, [batch])
    batch.acts_nd.view(torch.uint8)[4, 1] ^= 1
    changed = write_shard(tmp_path, [batch])
    assert first == again
    assert changed.shard.data != first.shard.data
    assert changed.shard.samples == first.shard.samples
    assert len(list(tmp_path.iterdir())) == 3


def test_samples_table_counts(tmp_path: Path) -> None:
    batches = [token_batch(30, 2, seed=1), token_batch(0, 2), token_batch(8, 2, seed=2)]
    files = write_shard(tmp_path, batches, settings=CacheSettings(tokens_per_sample=10))
    with pa.OSFile(str(tmp_path / files.shard.samples)) as file:
        table = pa.ipc.open_stream(file).read_all()
    assert table.schema.equals(SAMPLES_SCHEMA, check_metadata=True)
    assert table.column("sample_id").to_pylist() == ["id-0", "id-1", "id-2"]
    assert table.column("ordinal").to_pylist() == [100, 101, 102]
    assert table.column("tokens").to_pylist() == [30, 0, 8]
    assert table.column("kept_tokens").to_pylist() == [10, 0, 8]
    for name, modality in (("text_tokens", 0), ("image_tokens", 1)):
        counts = [int((batch.modality_n == modality).sum()) for batch in batches]
        assert table.column(name).to_pylist() == counts


def test_gaps_in_sample_indices_close(tmp_path: Path) -> None:
    writer = ShardWriter(at(tmp_path), "s", 2, "float32", CacheSettings())
    writer.add(7, "late", 7, token_batch(2, 2))
    writer.add(3, "early", 3, token_batch(1, 2))
    files = writer.finish()
    reader = CacheReader(at(tmp_path), [files.shard.data])
    assert read_samples(at(tmp_path), files.shard.samples).column("sample_id").to_pylist() == [
        "early",
        "late",
    ]
    assert sorted(reader.read_rows(0, range(3)).sample_n) == [0, 1, 1]


def test_empty_shard(tmp_path: Path) -> None:
    files = ShardWriter(at(tmp_path), "s", 4, "float16", CacheSettings()).finish()
    assert (files.shard.rows, files.shard.n_samples) == (0, 0)
    reader = CacheReader(at(tmp_path), [files.shard.data])
    assert (reader.rows, reader.d_in, reader.dtype) == (0, 4, "float16")
    assert read_samples(at(tmp_path), files.shard.samples).num_rows == 0


@pytest.mark.parametrize("n_bytes", [1, 140, 1 << 20])
def test_norms_are_those_of_the_rows(n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collected, "_NORM_BYTES", n_bytes)
    acts_nd = torch.randn(20, 5).to(torch.bfloat16)
    expected = [math.sqrt(sum(float(x) ** 2 for x in row)) for row in acts_nd]
    np.testing.assert_allclose(collected.row_norms(acts_nd), expected, rtol=1e-5)


def test_rules_drop_and_count(tmp_path: Path) -> None:
    acts_nd = torch.ones((100, 2))
    acts_nd[:3] = torch.tensor([[100.0, 0], [math.inf, 0], [math.nan, 0]])
    modality_n = np.zeros(100, np.uint8)
    batch = TokenBatch(*[np.arange(100, dtype=np.int32)] * 3, modality_n, acts_nd)
    files = write_shard(tmp_path, [batch], settings=CacheSettings(max_norm_ratio=10.0))
    assert files.shard.dropped == {"tokens_per_sample": 0, "image_fraction": 0, "max_norm_ratio": 3}
    kept = [row["position"] for row in reference.read_cache(tmp_path / files.shard.data)]
    assert sorted(kept) == list(range(3, 100))

    modality_n[50:80] = 1
    settings = CacheSettings(tokens_per_sample=20, image_fraction=0.5)
    files = write_shard(tmp_path, [batch], settings=settings)
    assert files.shard.dropped == {
        "tokens_per_sample": 40,
        "image_fraction": 40,
        "max_norm_ratio": 0,
    }
    modalities = [row["modality"] for row in reference.read_cache(tmp_path / files.shard.data)]
    assert sorted(modalities) == [0] * 10 + [1] * 10


def test_drawn_tokens_do_not_depend_on_the_shard(tmp_path: Path) -> None:
    batches = [token_batch(40, 2, seed=seed) for seed in range(3)]
    settings = CacheSettings(tokens_per_sample=5)
    together = write_shard(tmp_path, batches, settings=settings)
    writer = ShardWriter(at(tmp_path), "other", 2, "float32", settings)
    writer.add(0, "id-2", 102, batches[2])
    alone = writer.finish()
    of_third = {
        row["position"]
        for row in reference.read_cache(tmp_path / together.shard.data)
        if row["sample"] == 2
    }
    assert of_third == {
        row["position"] for row in reference.read_cache(tmp_path / alone.shard.data)
    }


def test_record_batches_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysae.activations.shard_file.MAX_BATCH_BYTES", 1000)
    files = write_shard(tmp_path, [token_batch(100, 8)])
    with pa.OSFile(str(tmp_path / files.shard.data)) as file:
        sizes = [batch.num_rows for batch in pa.ipc.open_stream(file)]
    assert sizes == [20] * 5
    assert len(reference.read_cache(tmp_path / files.shard.data)) == 100


def test_buffer_grows_beyond_the_planned_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raysae.activations.buffer.MAX_SHARD_BYTES", 100)
    batches = [token_batch(20, 4, seed=seed) for seed in range(3)]
    files = write_shard(tmp_path, batches)
    tokens = CacheReader(at(tmp_path), [files.shard.data]).read_rows(0, range(60))
    order = np.lexsort((tokens.position_n, tokens.sample_n))
    assert bits(tokens.acts_nd[order]) == b"".join(bits(batch.acts_nd) for batch in batches)


def test_wrong_width_dtype_and_repetition_are_refused(tmp_path: Path) -> None:
    writer = ShardWriter(at(tmp_path), "s", 4, "float16", CacheSettings())
    with pytest.raises(SettingsError, match="float32"):
        writer.add(0, "a", 0, token_batch(3, 4))
    with pytest.raises(SettingsError, match="width 4"):
        writer.add(0, "a", 0, token_batch(3, 5, "float16"))
    writer.add(0, "a", 0, token_batch(3, 4, "float16"))
    with pytest.raises(ValueError, match="added before"):
        writer.add(0, "a", 0, token_batch(3, 4, "float16"))
    with pytest.raises(SettingsError, match="float64"):
        ShardWriter(at(tmp_path), "s", 4, "float64", CacheSettings())


def test_nothing_is_left_of_an_abandoned_or_failed_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ShardWriter(at(tmp_path), "s", 2, "float32", CacheSettings())
    writer.add(0, "a", 0, token_batch(3, 2))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(
        "raysae.activations.writer.write_samples_file", lambda *_: (_ for _ in ()).throw(OSError)
    )
    with pytest.raises(OSError):
        writer.finish()
    assert list(tmp_path.iterdir()) == []


class WatchedMemory(Memory):
    def __init__(self) -> None:
        super().__init__()
        self.taken: list[int] = []
        self.given_back: list[int] = []

    def take(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        block = super().take(n_bytes)
        self.taken.append(block.ctypes.data)
        return block

    def give_back(self, block: npt.NDArray[np.uint8]) -> None:
        super().give_back(block)
        self.given_back.append(block.ctypes.data)


def test_shards_that_are_written_at_once_share_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor publishes a shard in one thread while it publishes the next one in another."""
    write_now, memory = AppendedFile.write, Memory()

    def write_slowly(file: AppendedFile, data: ReadableBuffer) -> int:
        time.sleep(0.001)
        return write_now(file, data)

    monkeypatch.setattr(AppendedFile, "write", write_slowly)

    def files(directory: str, memory: Memory | None) -> dict[str, bytes]:
        def write(number: int) -> None:
            for turn in range(8):
                writer = ShardWriter(
                    at(tmp_path / directory),
                    f"s-{number}-{turn}",
                    6,
                    "float32",
                    CacheSettings(),
                    memory=memory,
                )
                for index in range(1 + 3 * number):
                    name = f"{number}-{turn}-{index}"
                    writer.add(index, name, index, token_batch(40 + turn, 6, "float32"))
                writer.finish()

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(write, range(3)))
        found = (tmp_path / directory).rglob("*.arrow")
        return {path.name: path.read_bytes() for path in found}

    alone = files("alone", None)
    assert len(alone) == 2 * 3 * 8
    assert files("shared", memory) == alone


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_is_left_to_the_next_shard(tmp_path: Path, dtype: str) -> None:
    """Shards in the memory of others are what each is in its own; two at once never share any."""
    memory = WatchedMemory()

    def filled(directory: str, shard: str, memory: Memory | None) -> ShardWriter:
        writer = ShardWriter(
            at(tmp_path / directory), shard, 6, dtype, CacheSettings(), memory=memory
        )
        for index in range(4):
            writer.add(index, f"{shard}-{index}", index, token_batch(9 + index, 6, dtype))
        return writer

    for shard in ("s-1", "s-2", "s-3"):
        filled("alone", shard, None).finish()
    first, second = filled("shared", "s-1", memory), filled("shared", "s-2", memory)
    first.finish()
    third = filled("shared", "s-3", memory)
    second.finish()
    third.finish()
    assert sorted(memory.taken) == sorted(memory.given_back)
    # Two shards' hidden states at once, and the batches that one of them is gathered in.
    assert (len(memory.taken), len(set(memory.taken))) == (6, 3)
    alone, shared = (
        {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.arrow")}
        for name in ("alone", "shared")
    )
    assert len(alone) == 6
    assert alone == shared
