from __future__ import annotations

import time
import uuid
from typing import Any

import pytest

from raysae.errors import StorageError
from raysae.storage import Directory, storage_at
from raysae.storage.filesystems import object_filesystem
from raysae.storage.s3_requests import S3Requests
from raysae.storage.uris import ObjectUri
from tests.conftest import S3_BUCKET as BUCKET


@pytest.fixture
def root(s3_server: str) -> Directory:
    return storage_at(f"s3://{BUCKET}/{uuid.uuid4().hex}/ü b")


NAMES = ["a/1", "a/[x]*", "a/%41+ü", "a/b c/d", "ab"]


def test_listings_come_page_by_page(root: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        root.put_bytes(name, name.encode())
    fs, pages = object_filesystem("s3"), []

    def small_pages(method: str, **arguments: Any) -> Any:
        pages.append(method)
        return type(fs).call_s3(fs, method, **arguments, MaxKeys=2)

    monkeypatch.setattr(fs, "call_s3", small_pages)
    found = list(root.entries())
    assert [entry.key for entry in found] == sorted(NAMES)
    assert [entry.size for entry in found] == [len(name.encode()) for name in sorted(NAMES)]
    assert all(abs(entry.modified - time.time()) < 600 for entry in found)
    assert len(pages) == 3
    assert [entry.key for entry in (root / "a").entries()] == sorted(n[2:] for n in NAMES[:4])
    assert list((root / "none").entries()) == []


def test_many_are_removed_in_one_request(root: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        root.put_bytes(name, b"x")
    fs, methods = object_filesystem("s3"), []

    def noted(method: str, **arguments: Any) -> Any:
        methods.append(method)
        return type(fs).call_s3(fs, method, **arguments)

    monkeypatch.setattr(fs, "call_s3", noted)
    root.remove([*NAMES[:4], "none"])
    assert methods == ["delete_objects"]
    assert [entry.key for entry in root.entries()] == ["ab"]
    root.remove([])
    assert methods == ["delete_objects", "list_objects_v2"]


class Answering:
    """A client that gets one answer."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer

    def call_s3(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self.answer


def test_an_object_that_is_not_removed_is_an_error() -> None:
    problem = {"Key": "a", "Code": "AccessDenied", "Message": "no"}
    requests = S3Requests(ObjectUri("s3", "b", "p"), Answering({"Errors": [problem]}))
    with pytest.raises(StorageError, match="s3://b/p/a and 1 others cannot be deleted: denied"):
        requests.delete(["a", "c"])


def test_uploads_that_were_never_ended(root: Directory) -> None:
    fs = object_filesystem("s3")
    key = f"{root.backend.uri.prefix}/saes/x/big ü"  # type: ignore[attr-defined]
    begun = fs.call_s3("create_multipart_upload", Bucket=BUCKET, Key=key)["UploadId"]
    fs.call_s3("create_multipart_upload", Bucket=BUCKET, Key="of-somebody-else")
    part = {"Bucket": BUCKET, "Key": key, "UploadId": begun, "PartNumber": 1}
    fs.call_s3("upload_part", **part, Body=b"12345")
    (upload,) = root.backend.unfinished_uploads("")
    assert (upload.key, upload.size) == ("saes/x/big ü", 5)
    assert upload.begun > 0
    root.backend.abort_upload(upload)
    root.backend.abort_upload(upload)
    assert list(root.backend.unfinished_uploads("")) == []
    assert "of-somebody-else" in {
        one["Key"] for one in fs.call_s3("list_multipart_uploads", Bucket=BUCKET)["Uploads"]
    }


@pytest.mark.parametrize("size", [0, 1, 100])
def test_objects_are_streamed_in_ranges(
    root: Directory, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("raysae.storage.objects.PIECE_BYTES", 33)
    data = bytes(range(size))
    root.put_bytes("file", data)
    pieces = [bytes(piece) for piece in root.stream("file")]
    assert b"".join(pieces) == data
    assert len(pieces) == -(-size // 33)
    with pytest.raises(FileNotFoundError):
        list(root.stream("none"))
