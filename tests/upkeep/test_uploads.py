"""Uploads in parts that nobody ended: only an object store has them."""

from __future__ import annotations

import pytest

from raysae.storage import MARKER, Upload, open_storage
from raysae.storage.filesystems import object_filesystem
from raysae.storage.objects import ObjectBackend
from raysae.upkeep.collect import CollectSettings, run_collect
from tests.conftest import S3_BUCKET as BUCKET


def test_old_uploads_are_given_up(s3_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The server tells of all uploads that they were begun in 2010."""
    root = open_storage(f"s3://{BUCKET}/uploads")
    fs = object_filesystem("s3")
    for key in ("saes/x/sae.safetensors", "notes/of-somebody-else"):
        fs.call_s3("create_multipart_upload", Bucket=BUCKET, Key=f"uploads/{key}")
    result = run_collect(CollectSettings(str(root)))
    assert [(item.name, item.files) for item in result.items] == [("uploads", 1)]
    assert "would delete uploads, 1 upload, 0 bytes: never ended" in capsys.readouterr().out
    run_collect(CollectSettings(str(root), delete=True))
    assert [upload.key for upload in root.backend.unfinished_uploads("")] == [
        "notes/of-somebody-else"
    ]
    assert [entry.key for entry in root.entries()] == [MARKER]


def test_young_uploads_stay(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = open_storage(f"s3://{BUCKET}/young-uploads")
    (marker,) = root.entries()
    young = Upload("saes/x/sae.safetensors", "id", marker.modified, 5)
    monkeypatch.setattr(ObjectBackend, "unfinished_uploads", lambda *_: iter([young]))
    assert run_collect(CollectSettings(str(root))).items == ()
