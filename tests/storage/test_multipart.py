"""A file that is sent in parts, on a way that loses some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import s3fs

from raysae.storage import retry
from raysae.storage.objects import PARTS_AT_ONCE, ObjectBackend
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
    """Sends less than fifty megabytes in parts, too, and counts those that are on their way."""

    sending = 0
    most = 0

    async def _call_s3(self, method: str, *arguments: Any, **more: Any) -> Any:
        part = method == "upload_part"
        self.sending += part
        self.most = max(self.most, self.sending)
        try:
            return await super()._call_s3(method, *arguments, **more)
        finally:
            self.sending -= part

    async def _put_file(self, lpath: str, rpath: str, **more: Any) -> None:
        await super()._put_file(lpath, rpath, **{**more, "chunksize": PART_BYTES})


@pytest.fixture
def proxy(s3_server: str) -> Iterator[Proxy]:
    with s3_proxy(s3_server) as proxy:
        yield proxy


def client_of(proxy: Proxy) -> SmallParts:
    return SmallParts(endpoint_url=proxy.endpoint, key="k", secret="s", skip_instance_cache=True)


def on(client: SmallParts, tmp_path: Path) -> ObjectBackend:
    return ObjectBackend(ObjectUri("s3", S3_BUCKET, f"{tmp_path.name}/in parts"), client)


def test_few_parts_are_in_memory_at_once(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    client = client_of(proxy)
    backend = on(client, tmp_path)
    local = backend.scratch("file")
    local.write_bytes(bytes(3 * PARTS_AT_ONCE * PART_BYTES))
    backend.put_file(local, "file")
    assert client.most == PARTS_AT_ONCE


@pytest.mark.parametrize("faults", FAULTS)
def test_it_arrives_whole_or_not_at_all(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: str
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(retry.time, "sleep", lambda _: None)
    backend = on(client_of(proxy), tmp_path)
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
