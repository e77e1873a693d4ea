from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from raysae.corpora import contents
from raysae.corpora.contents import FileRead, contents_reader, read_all
from raysae.corpora.learned import Schemas
from raysae.corpora.listing import list_local
from raysae.errors import DataError
from tests.corpora.rows import SCHEMA, row, write_rows


def read(directory: Path, settled_at: float = 0.0) -> list[FileRead]:
    listing = list_local(directory, "x")
    nothing = [None] * len(listing.files)
    return read_all(listing, listing.files, nothing, Schemas(), settled_at)


@pytest.mark.parametrize("small", [0, 2**20])
def test_a_file_is_hashed_and_its_end_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(contents, "SMALL_FILE_BYTES", small)
    path = write_rows(tmp_path / "a.parquet", [row(), row()])
    (one,) = read(tmp_path)
    assert one.learned.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert one.learned.rows == 2
    assert one.learned.schema.names == SCHEMA.names
    assert one.settled


def test_what_is_read_too_soon_is_not_settled(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    (one,) = read(tmp_path, settled_at=time.monotonic() + 100)
    assert not one.settled


def test_a_new_link_to_a_file_is_no_change_but_not_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sets ctime, as a write does, but neither size nor mtime."""
    path = write_rows(tmp_path / "a.parquet", [row()])
    hash_file = contents._hash_and_contents

    def link_then_hash(*arguments: object) -> object:
        (tmp_path / "backup").hardlink_to(path)
        return hash_file(*arguments)

    monkeypatch.setattr(contents, "_hash_and_contents", link_then_hash)
    (one,) = read(tmp_path)
    assert not one.settled


def test_a_write_while_it_is_hashed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "a.parquet", [row()])
    hash_file = contents._hash_and_contents

    def hash_then_write(*arguments: object) -> object:
        hashed = hash_file(*arguments)
        with path.open("ab") as file:
            file.write(b"more")
        return hashed

    monkeypatch.setattr(contents, "_hash_and_contents", hash_then_write)
    with pytest.raises(DataError, match=r"a\.parquet changed while the corpus was opened"):
        read(tmp_path)


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "a.parquet", [row()])
    listing = list_local(tmp_path, "x")
    path.unlink()
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as Parquet .*No such file"):
        contents_reader(listing, Schemas())(listing.files[0])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read as Parquet .*No such file"):
        read_all(listing, listing.files, [None], Schemas(), 0.0)
