from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

from raysae.activations import CacheReader, write_dataset_index
from raysae.activations.format import as_numpy, tokens_schema
from raysae.errors import DataError
from tests.activations.caches import DTYPES, token_batch, write_shard
from tests.storages import at


@pytest.mark.parametrize("dtype", DTYPES)
def test_datasets_opens_the_cache(tmp_path: Path, dtype: str) -> None:
    shards = [
        write_shard(tmp_path, [token_batch(n, 3, dtype, n)], name=f"shard-{n}").shard.data
        for n in (5, 0, 8)
    ]
    write_shard(tmp_path, [token_batch(4, 3, dtype)], name="interrupted")
    write_dataset_index(at(tmp_path), shards, 3, dtype)
    opened = datasets.load_from_disk(str(tmp_path))
    assert opened.num_rows == 13
    assert opened.features == datasets.Features.from_arrow_schema(tokens_schema(3, dtype))
    reader = CacheReader(at(tmp_path), shards)
    expected = reader.read(np.repeat([0, 2], [5, 8]), np.r_[0:5, 0:8])
    assert opened["token_id"][:] == expected.token_id_n.tolist()
    read_nd = opened.with_format("numpy")["activation"][:]
    stored_nd = as_numpy(expected.acts_nd)
    assert np.array_equal(
        np.asarray(read_nd, stored_nd.dtype), stored_nd, equal_nan=dtype != "bfloat16"
    )


def test_features_are_what_datasets_would_write(tmp_path: Path) -> None:
    files = write_shard(tmp_path, [token_batch(2, 3)])
    write_dataset_index(at(tmp_path), [files.shard.data], 3, "float32")
    written = json.loads((tmp_path / "dataset_info.json").read_text())["features"]
    assert written == datasets.Features.from_arrow_schema(tokens_schema(3, "float32")).to_dict()


def test_an_empty_cache_has_no_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no shard"):
        write_dataset_index(at(tmp_path), [], 3, "float32")
