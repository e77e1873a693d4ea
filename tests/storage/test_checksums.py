from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from raysae.artifacts import CHECKSUM, publish_file
from raysae.storage.checksums import fits_its_name
from tests.storages import at

DIGITS = hashlib.sha256(b"data").hexdigest()[:16]


@pytest.mark.parametrize(
    "name",
    [f"a/shard-00001-{CHECKSUM}.arrow", f"data/{'0' * 24}-{CHECKSUM}.parquet", f"s-{CHECKSUM}.a.b"],
)
def test_names_of_published_files_are_understood(tmp_path: Path, name: str) -> None:
    storage = at(tmp_path)
    local = storage.scratch(name)
    local.write_bytes(b"data")
    record = publish_file(storage, local, name)
    copy = tmp_path / record.name
    assert DIGITS in record.name
    assert fits_its_name(copy, record.name)
    copy.write_bytes(b"atad")
    assert not fits_its_name(copy, record.name)


@pytest.mark.parametrize(
    "name", ["metadata.json", f"shard-{'0' * 16}-more.arrow", f"x-{'0' * 24}.done.json", "0" * 16]
)
def test_other_names_say_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "copy").write_bytes(b"data")
    assert fits_its_name(tmp_path / "copy", name)
