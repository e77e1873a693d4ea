from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.artifacts import CHECKSUM, FileRecord, Publication, publish_bytes, publish_file
from raysae.artifacts.files import all_there, records_from_json, records_to_json
from raysae.errors import StorageError
from raysae.storage import Directory

RECORDS = st.lists(st.builds(FileRecord, st.text(), st.integers(0), st.text()))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names(directory: Directory) -> list[str]:
    return [entry.key for entry in directory.entries()]


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 100_000])
def test_a_record_says_what_was_published(storage_root: Directory, data: bytes) -> None:
    local = storage_root.scratch("a/file")
    local.write_bytes(data)
    record = publish_file(storage_root, local, "a/file")
    assert record == FileRecord("a/file", len(data), sha256(data))
    assert storage_root.read_bytes("a/file") == data
    assert not local.exists()
    assert publish_bytes(storage_root, "b", data) == FileRecord("b", len(data), sha256(data))
    assert storage_root.read_bytes("b") == data


def test_a_name_can_carry_its_contents_checksum(storage_root: Directory) -> None:
    found = []
    for data in (b"some", b"other", b"some"):
        local = storage_root.scratch("a/file")
        local.write_bytes(data)
        found.append(publish_file(storage_root, local, f"a/file-{CHECKSUM}.arrow").name)
    assert found[0] == found[2] == f"a/file-{sha256(b'some')[:16]}.arrow"
    assert names(storage_root) == sorted(set(found))


def test_a_publication_records_its_files_as_they_appear(storage_root: Directory) -> None:
    publication = Publication(storage_root / "kind")
    with publication.writing(f"a-{CHECKSUM}") as local:
        local.write_bytes(b"some")
        assert publication.records == []
    publication.put_bytes("b", b"x")
    assert [record.name for record in publication.records] == [f"a-{sha256(b'some')[:16]}", "b"]
    assert names(storage_root / "kind") == [record.name for record in publication.records]


def test_a_writer_that_fails_publishes_and_records_nothing(storage_root: Directory) -> None:
    publication = Publication(storage_root)

    def write() -> Path:
        with publication.writing("a") as local:
            local.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert publication.records == []
    assert names(storage_root) == []


@given(RECORDS)
def test_records_are_read_as_they_were_written(records: list[FileRecord]) -> None:
    assert records_from_json(json.loads(json.dumps(records_to_json(records)))) == records


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        5,
        "abc",
        {"name": "a"},
        [None],
        [[]],
        [{}],
        [{"name": "a", "size": 1}],
        [{"name": 1, "size": 1, "sha256": "x"}],
        [{"name": "a", "size": "1", "sha256": "x"}],
        [{"name": "a", "size": True, "sha256": "x"}],
        [{"name": "a", "size": 1.0, "sha256": "x"}],
        [{"name": "a", "size": 1, "sha256": None}],
    ],
)
def test_what_is_no_list_of_records_is_refused(garbage: object) -> None:
    with pytest.raises((KeyError, TypeError)):
        records_from_json(garbage)  # type: ignore[arg-type]


def test_files_are_there_if_all_have_their_sizes(storage_root: Directory) -> None:
    records = [publish_bytes(storage_root, f"a/{n}", b"x" * n) for n in range(6)]
    assert all_there(storage_root, records)
    assert all_there(storage_root, iter(records))
    assert all_there(storage_root, [])
    assert not all_there(storage_root, [*records, FileRecord("none", 0, "")])
    storage_root.put_bytes("a/3", b"xx")
    assert not all_there(storage_root, records)
    with pytest.raises(StorageError, match="no name below"):
        all_there(storage_root, [FileRecord("../x", 0, "")])
