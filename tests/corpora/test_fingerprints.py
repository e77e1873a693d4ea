from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from raysae.corpora.fingerprints import hub_fingerprint, id_digits, object_fingerprint

MD5 = hashlib.md5(b"hello").hexdigest()


@pytest.mark.parametrize(
    ("uri", "info", "fingerprint"),
    [
        ("s3://b/x", {"size": 5, "ETag": f'"{MD5}"'}, f"etag:5:{MD5}"),
        ("s3://b/x", {"size": 7, "ETag": f'"{MD5}-12"'}, f"etag:7:{MD5}-12"),
        ("gs://b/x", {"size": 5, "md5Hash": base64.b64encode(bytes.fromhex(MD5))}, f"md5:5:{MD5}"),
    ],
)
def test_objects(uri: str, info: dict[str, Any], fingerprint: str) -> None:
    assert object_fingerprint(uri, info) == fingerprint


def test_tags_that_are_times_count_for_one_object_only() -> None:
    """Two objects may be written in one tick of Azure's clock."""
    info = {"size": 5, "etag": '"0x8D4BCC2E4835CD0"'}
    found = {object_fingerprint(f"abfs://b/{name}", info) for name in "xy"}
    found |= {object_fingerprint(f"gs://b/{name}", info) for name in "xy"}
    found.add(object_fingerprint("abfs://b/x", {**info, "etag": '"0x8D4BCC2E4835CD1"'}))
    assert len(found) == 5
    assert all(one.startswith("version:5:") for one in found)


def test_every_kind_has_a_bounded_length() -> None:
    tags = ["x" * 10_000, "x" * 9_999, "a b", "a:b", "ä"]
    found = [object_fingerprint("s3://b/x", {"size": 2**62, "ETag": tag}) for tag in tags]
    assert len(set(found)) == len(tags)
    assert all(len(one) < 100 for one in found)


def test_an_object_without_a_tag_is_refused() -> None:
    with pytest.raises(OSError, match="s3://b/x has no entity tag"):
        object_fingerprint("s3://b/x", {"size": 5})


def test_files_on_the_hub() -> None:
    large = {"blob_id": "c0ffee", "lfs": {"sha256": "ab" * 32, "size": 1, "pointer_size": 1}}
    assert hub_fingerprint(large) == "ab" * 32
    assert hub_fingerprint({"blob_id": "c0ffee", "lfs": None}) == "git:c0ffee"


def test_ids_of_local_files_are_the_beginning_of_their_hash() -> None:
    assert id_digits("0123456789abcdef" * 4) == "0123456789ab"


def test_other_kinds_have_ids_that_differ() -> None:
    """Their beginnings are alike."""
    ids = {id_digits(f"etag:1234567:{number}") for number in range(1000)}
    assert len(ids) == 1000
    assert all(len(id_) == 12 and int(id_, 16) >= 0 for id_ in ids)
