from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysae.artifacts import content_id
from raysae.corpora import CorpusSettings, open_corpus
from raysae.corpora.listing import list_local
from raysae.corpora.snapshot import CorpusSnapshot
from raysae.errors import DataError, SettingsError
from tests.corpora.rows import SCHEMA, row, write_rows


def snapshot_of(path: Path, max_rows: int = 0) -> CorpusSnapshot:
    return open_corpus(CorpusSettings("align-anything", str(path), max_rows)).snapshot


def three_files(directory: Path) -> Path:
    for number, rows in enumerate((2, 0, 3)):
        values = [row(question=f"question {number} {i}") for i in range(rows)]
        write_rows(directory / f"part-{number}.parquet", values)
    return directory


def test_files_are_sorted_and_fingerprinted(tmp_path: Path) -> None:
    snapshot = snapshot_of(three_files(tmp_path))
    assert [file.name for file in snapshot.files] == [f"part-{i}.parquet" for i in range(3)]
    for file in snapshot.files:
        data = Path(file.uri).read_bytes()
        assert (file.size, file.fingerprint) == (len(data), hashlib.sha256(data).hexdigest())
    assert snapshot.file_rows == [2, 0, 3]
    assert snapshot.rows == 5
    assert [snapshot.first_ordinal(i) for i in range(3)] == [0, 2, 2]


def test_ordinals_and_ids(tmp_path: Path) -> None:
    snapshot = snapshot_of(three_files(tmp_path))
    assert [snapshot.locate(i) for i in range(5)] == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    assert snapshot.sample_id(3) == f"{snapshot.files[2].fingerprint[:12]}-1"
    for ordinal in (-1, 5):
        with pytest.raises(IndexError):
            snapshot.locate(ordinal)


def test_only_the_content_of_the_parquet_files_counts(tmp_path: Path) -> None:
    first = snapshot_of(three_files(tmp_path / "a"))
    write_rows(tmp_path / "b" / ".hidden.parquet", [row()])
    write_rows(tmp_path / "b" / "_temporary" / "x.parquet", [row()])
    (tmp_path / "b" / "README.md").write_text("changed on the hub")
    second = snapshot_of(three_files(tmp_path / "b"))
    assert content_id(first.to_json()) == content_id(second.to_json())
    assert str(tmp_path) not in json.dumps(first.to_json())
    write_rows(tmp_path / "b" / "part-2.parquet", [row(question="another")])
    assert content_id(snapshot_of(tmp_path / "b").to_json()) != content_id(first.to_json())


def test_ids_survive_new_and_renamed_files(tmp_path: Path) -> None:
    before = snapshot_of(three_files(tmp_path))
    (tmp_path / "part-0.parquet").rename(tmp_path / "zz.parquet")
    write_rows(tmp_path / "part-00.parquet", [row(question="new")])
    after = snapshot_of(tmp_path)
    old_ids = {before.sample_id(i) for i in range(5)}
    assert old_ids < {after.sample_id(i) for i in range(6)}


@pytest.mark.parametrize(
    ("max_rows", "file_rows"), [(0, [2, 0, 3]), (1, [1]), (2, [2]), (4, [2, 0, 2]), (99, [2, 0, 3])]
)
def test_max_rows_cuts_the_tail(tmp_path: Path, max_rows: int, file_rows: list[int]) -> None:
    whole = snapshot_of(three_files(tmp_path))
    cut = snapshot_of(tmp_path, max_rows)
    assert cut.file_rows == file_rows
    assert [cut.sample_id(i) for i in range(cut.rows)] == [
        whole.sample_id(i) for i in range(cut.rows)
    ]


def test_subdirectories_and_single_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "train" / "a.parquet", [row()])
    write_rows(tmp_path / "b.parquet", [row()])
    names = [file.name for file in list_local(tmp_path, "x").files]
    assert names == ["b.parquet", "train/a.parquet"]
    single = list_local(tmp_path / "b.parquet", "x")
    assert (single.root, [file.name for file in single.files]) == (str(tmp_path), ["b.parquet"])


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        snapshot_of(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no file named \*\.parquet"):
        snapshot_of(tmp_path)
    (tmp_path / "README.md").write_text("# A data set")
    with pytest.raises(DataError, match=str(tmp_path)):
        snapshot_of(tmp_path)
    pq.write_table(SCHEMA.empty_table(), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no rows"):
        snapshot_of(tmp_path)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"b\.parquet"):
        snapshot_of(tmp_path)
