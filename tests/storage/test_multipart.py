"""A file that is sent in parts, on a way that loses some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import s3fs

from raysae.storage import retry
from raysae.storage.objects import ObjectBackend
from raysae.storage.uris import ObjectUri
from tests.cluster.s3_faults import Fault, Kind, Rule
from tests.cluster.s3_proxy import Proxy, s3_proxy
from tests.conftest import S3_BUCKET

MIB = 2**20
PART_BYTES = 5 * MIB
"""The smallest that S3 takes; the client's own are ten times larger."""

FAULTS: dict[str, Sequence[Rule]] = {
    "none": (),
    "the last answer is lost": [Rule(Fault.DROP_AFTER, (Kind.COMPLETE,), nth=1)],
    "a part is cut": [Rule(Fault.CUT_REQUEST, (Kind.UPLOAD_PART,), nth=2)],
    "it cannot begin": [Rule(Fault.ERROR, (Kind.CREATE_MULTIPART,), nth=1)],
    "it cannot end": [Rule(Fault.ERROR, (Kind.COMPLETE,), nth=1)],
}


class SmallParts(s3fs.S3FileSystem):
    """Sends less than fifty megabytes in parts, too."""

    async def _put_file(self, lpath: str, rpath: str, **more: Any) -> None:
        await super()._put_file(lpath, rpath, **{**more, "chunksize": PART_BYTES})


@pytest.fixture
def proxy(s3_server: str) -> Iterator[Proxy]:
    with s3_proxy(s3_server) as proxy:
        yield proxy


@pytest.mark.parametrize("faults", FAULTS)
def test_it_arrives_whole_or_not_at_all(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    client = SmallParts(endpoint_url=proxy.endpoint, key="k", secret="s", skip_instance_cache=True)
    backend = ObjectBackend(ObjectUri("s3", S3_BUCKET, f"{tmp_path.name}/in parts"), client)
    backend.put_bytes("file", b"older")
    proxy.use(*FAULTS[faults], seed=3)
    data = os.urandom(11 * MIB)
    local = backend.scratch("file")
    local.write_bytes(data)
    backend.put_file(local, "file")
    assert proxy.requests[Kind.COMPLETE] >= 1
    assert {rule.fault for rule in FAULTS[faults]} <= proxy.injected.keys()
    proxy.reset()
    assert backend.read("file") == data
    assert [entry.key for entry in backend.entries("")] == ["file"]
