"""A cache that was made on a disk, read from a bucket, and the other way round."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raysae.activations import BatchReader, CachedShard, CacheReader, ReadingOrder, TokenLookup
from raysae.storage import Directory, storage_at
from tests.activations.caches import DTYPES, bits, token_batch, write_shard
from tests.conftest import S3_BUCKET


@pytest.fixture
def places(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Directory]:
    monkeypatch.setenv("RAYSAE_NODE_CACHE", str(tmp_path / "copies"))
    bucket = storage_at(f"s3://{S3_BUCKET}/{tmp_path.name}/moved")
    return {"disk": storage_at(str(tmp_path / "disk")), "bucket": bucket}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("made", "read"), [("disk", "bucket"), ("bucket", "disk")])
def test_a_cache_is_the_same_wherever_it_lies(
    places: dict[str, Directory], tmp_path: Path, dtype: str, made: str, read: str
) -> None:
    shards: list[CachedShard] = []
    for number in range(3):
        batches = [token_batch(n, 5, dtype, seed=7 * number + n) for n in (40, 1, 13)]
        files = write_shard(tmp_path / "never", batches, f"shard-{number}", into=places[made])
        shards.append(files.shard)
        for record in files.records:
            (tmp_path / "moving").unlink(missing_ok=True)
            places[made].fetch(record.name, tmp_path / "moving")
            places[read].upload(tmp_path / "moving", record.name)
    names = [shard.data for shard in shards]
    readers = {place: CacheReader(places[place], names) for place in (made, read)}
    order = ReadingOrder(readers[made].shard_rows, seed=1, mix_shards=2)
    here, there = (
        list(BatchReader(reader, order, 20, slice(5, 17)).batches(3, 12))
        for reader in readers.values()
    )
    for one, other in zip(here, there, strict=True):
        assert bits(one.acts_nd) == bits(other.acts_nd)
        assert one.token_id_n.tolist() == other.token_id_n.tolist()
    token = (np.array([2, 0]), np.array([0, 2]), np.array([39, 12]))
    found = [TokenLookup(places[place], shards).read(*token) for place in (made, read)]
    assert bits(found[0]) == bits(found[1])
