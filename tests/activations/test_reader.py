from __future__ import annotations

import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raysae.activations import CacheReader, Compression, ReadingOrder, read_samples
from raysae.activations.format import SAMPLES_SCHEMA, VERSION_KEY, as_numpy
from raysae.errors import DataError, StorageError
from tests.activations.caches import DTYPES, token_batch, write_shard
from tests.reference import activations as reference
from tests.storages import at


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_bytes", [64 << 20, 400])
def test_rows_match_the_slow_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, batch_bytes: int
) -> None:
    monkeypatch.setattr("raysae.activations.shard_file.MAX_BATCH_BYTES", batch_bytes)
    files = write_shard(tmp_path, [token_batch(n, 5, dtype, n) for n in (30, 1, 12)])
    expected = reference.read_cache(tmp_path / files.shard.data)
    wanted = [42, 0, 17, 17, 3, 41]
    tokens = CacheReader(at(tmp_path), [files.shard.data]).read_rows(0, wanted)
    assert len(tokens) == 6
    for place, row in enumerate(wanted):
        assert tokens.sample_n[place] == expected[row]["sample"]
        assert tokens.position_n[place] == expected[row]["position"]
        assert tokens.token_id_n[place] == expected[row]["token_id"]
        assert tokens.modality_n[place] == expected[row]["modality"]
        stored = as_numpy(tokens.acts_nd[place])
        assert np.array_equal(
            stored, np.array(expected[row]["activation"], stored.dtype), True
        ) or (dtype == "bfloat16" and stored.tolist() == expected[row]["activation"])


def three_shards(directory: Path) -> tuple[CacheReader, list[list[tuple[int, int]]]]:
    """Return a reader, and (sample, position) of every row of every shard."""
    files = [
        write_shard(directory, [token_batch(n, 3, seed=n)], name=f"shard-{number:05d}")
        for number, n in enumerate((20, 1, 33))
    ]
    rows = [
        [
            (row["token_id"], row["position"])
            for row in reference.read_cache(directory / file.shard.data)
        ]
        for file in files
    ]
    return CacheReader(at(directory), [file.shard.data for file in files]), rows


def test_read_mixes_shards_in_storage_order(tmp_path: Path) -> None:
    reader, expected = three_shards(tmp_path)
    assert reader.shard_rows == (20, 1, 33)
    assert reader.rows == 54
    shard_n, row_n = np.array([2, 0, 2, 1, 0]), np.array([5, 19, 4, 0, 2])
    tokens = reader.read(shard_n, row_n)
    read = list(zip(tokens.token_id_n.tolist(), tokens.position_n.tolist(), strict=True))
    in_order = [(0, 2), (0, 19), (1, 0), (2, 4), (2, 5)]
    assert read == [expected[shard][row] for shard, row in in_order]


def test_an_epoch_reads_every_token_once(tmp_path: Path) -> None:
    reader, expected = three_shards(tmp_path)
    order = ReadingOrder(reader.shard_rows, seed=3, mix_shards=2)
    read: list[tuple[int, int]] = []
    for step in range(9):
        tokens = reader.read(*order.rows(step, 6))
        read += zip(tokens.token_id_n.tolist(), tokens.position_n.tolist(), strict=True)
    assert sorted(read) == sorted(row for shard in expected for row in shard)


def test_few_shards_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysae.activations.reader.OPEN_SHARDS", 2)
    reader, expected = three_shards(tmp_path)
    for shard in (0, 1, 2, 0, 2, 1):
        assert reader.read_rows(shard, [0]).token_id_n[0] == expected[shard][0][0]
        assert len(reader._open) <= 2


def test_a_pickled_reader_reads(tmp_path: Path) -> None:
    reader, _ = three_shards(tmp_path)
    copy = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(copy.read_rows(2, [1]).token_id_n, reader.read_rows(2, [1]).token_id_n)


def test_results_can_be_written_to(tmp_path: Path) -> None:
    reader, _ = three_shards(tmp_path)
    reader.read_rows(0, [0]).acts_nd.zero_()
    assert reader.read_rows(0, [0]).acts_nd.abs().sum() > 0


def test_rows_out_of_range(tmp_path: Path) -> None:
    reader, _ = three_shards(tmp_path)
    for rows in ([20], [-1], [0, 20]):
        with pytest.raises(IndexError, match="20 rows"):
            reader.read_rows(0, rows)
    assert len(reader.read_rows(0, [])) == 0


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_damage_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: Compression
) -> None:
    monkeypatch.setenv("RAYSAE_NODE_CACHE", str(tmp_path / "copies"))
    files = write_shard(tmp_path, [token_batch(20, 3)], compression=compression)
    path = tmp_path / files.shard.data
    data = path.read_bytes()
    middle = len(data) // 2
    altered = data[: middle - 50] + b"nonsense" * 12 + data[middle + 46 :]
    # What is unpacked is checked against the name first; else altered bytes are other numbers.
    wrong = [altered] if compression == "zstd" else []
    error = StorageError if compression == "zstd" else DataError
    for damaged in (data[:-8], data[:-100], data[:50], b"", b"nonsense" * 20, *wrong):
        path.write_bytes(damaged)
        with pytest.raises(error, match=files.shard.data):
            CacheReader(at(tmp_path), [files.shard.data])
        with suppress(error):
            # What is not looked at there is seen where it is read.
            CacheReader(at(tmp_path), [files.shard.data], [20]).read_ahead(0)
    path.write_bytes(data)
    assert CacheReader(at(tmp_path), [files.shard.data]).shard_rows == (20,)
    path.unlink()
    if compression == "zstd":  # What was unpacked of the whole file is kept.
        (copies,) = (tmp_path / "copies").glob("raysae-*[!k]")
        copies.unlink()
    with pytest.raises(DataError, match=files.shard.data):
        CacheReader(at(tmp_path), [files.shard.data])
    with pytest.raises(DataError, match="no shard"):
        CacheReader(at(tmp_path), [])
    path.write_bytes(data)


def test_a_damaged_samples_table_is_named(tmp_path: Path) -> None:
    files = write_shard(tmp_path, [token_batch(20, 3)])
    path = tmp_path / files.shard.samples
    data = path.read_bytes()
    end = data.rindex(b"\xff\xff\xff\xff", 0, len(data) - 8)
    for damaged in (b"nonsense", data[:-8], data[:end]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=files.shard.samples):
            read_samples(at(tmp_path), files.shard.samples)
    old = SAMPLES_SCHEMA.with_metadata({VERSION_KEY: b"1"})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, old):
        pass
    with pytest.raises(DataError, match="or another version"):
        read_samples(at(tmp_path), files.shard.samples)


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    one = write_shard(tmp_path, [token_batch(3, 2)])
    other = write_shard(tmp_path, [token_batch(3, 2, "float16")], name="other")
    reader = CacheReader(at(tmp_path), [one.shard.data, other.shard.data], [3, 3])
    with pytest.raises(DataError, match="float16"):
        reader.read_rows(1, [0])
    with pytest.raises(DataError, match="4"):
        CacheReader(at(tmp_path), [one.shard.data], [4]).read_rows(0, [0])


def test_other_arrow_files_are_refused(tmp_path: Path) -> None:
    table = pa.table({"activation": pa.array([[1.0]], pa.list_(pa.float32(), 1))})
    path = tmp_path / "x.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    with pytest.raises(DataError, match="no activation cache"):
        CacheReader(at(tmp_path), ["x.arrow"])
