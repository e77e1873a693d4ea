from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysae.artifacts import content_id
from raysae.corpora import CorpusSettings, CorpusSnapshot, contents, open_corpus, taking
from raysae.corpora.columns import ColumnMap
from raysae.errors import DataError
from tests.corpora.conftest import S3
from tests.corpora.hub_server import Hub
from tests.corpora.rows import SCHEMA, parquet, row, write_rows
from tests.corpora.tables import WRITERS
from tests.reference.corpus_snapshot import snapshot_json

NAMES = st.sampled_from(["a", "b", "c c", "d/a", "d/ü", "d/e/x#1", "f.parquet/part", "zz"])


def snapshot_of(path: Path | str, max_rows: int = 0) -> CorpusSnapshot:
    return open_corpus(CorpusSettings("align-anything", str(path), max_rows)).snapshot


def id_of(path: Path | str, max_rows: int = 0) -> str:
    return content_id(snapshot_of(path, max_rows).to_json())


@contextmanager
def directory_of(files: dict[str, int]) -> Iterator[Path]:
    """Write files of so many rows, each row another."""
    with tempfile.TemporaryDirectory() as directory:
        for name, rows in files.items():
            values = [row(question=f"{name} {i}", image=b"") for i in range(rows)]
            write_rows(Path(directory) / f"{name}.parquet", values)
        yield Path(directory)


@pytest.fixture
def everything_remembered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Remember even the smallest corpus, without waiting; return the names of files hashed."""
    monkeypatch.setattr(taking, "SOME_FILES", 1)
    monkeypatch.setattr(taking, "SETTLE_S", 0.0)
    hashed: list[str] = []
    hash_file = contents._hash_and_contents

    def noted(data: Any, *others: Any) -> Any:
        hashed.append(Path(data.name).name)
        return hash_file(data, *others)

    monkeypatch.setattr(contents, "_hash_and_contents", noted)
    return hashed


@settings(max_examples=40)
@given(
    files=st.dictionaries(NAMES, st.integers(1, 4), min_size=1),
    max_rows=st.integers(0, 12),
    threads=st.integers(1, 9),
    chance=st.randoms(use_true_random=False),
)
def test_the_obvious_loop_finds_the_same(
    files: dict[str, int], max_rows: int, threads: int, chance: random.Random
) -> None:
    """Whatever the order of the directory's entries and the number of threads."""
    with directory_of(files) as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents, "LOCAL_THREADS", threads)
        patch.setattr("raysae.corpora.listing.os.scandir", shuffled(chance))
        snapshot = snapshot_of(directory, max_rows)
        assert snapshot.to_json() == snapshot_json("align-anything", directory, max_rows)


def shuffled(chance: random.Random) -> Any:
    """Return a `scandir` that gives its entries in another order."""
    scandir = os.scandir

    @contextmanager
    def scan(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as found:
            entries = list(found)
        chance.shuffle(entries)
        yield entries

    return scan


@settings(max_examples=40)
@given(
    files=st.dictionaries(NAMES, st.integers(1, 4), min_size=1),
    change=st.sampled_from(["byte", "rename", "add", "remove", "swap"]),
    chance=st.randoms(use_true_random=False),
)
def test_any_change_of_content_changes_the_id(
    files: dict[str, int], change: str, chance: random.Random
) -> None:
    with directory_of(files | {"m": 1, "n": 2}) as directory:
        before = id_of(directory)
        path = chance.choice(sorted(filter(Path.is_file, directory.rglob("*.parquet"))))
        if change == "byte":  # of the first page, so that it stays a Parquet file
            data = bytearray(path.read_bytes())
            data[chance.randrange(4, 20)] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
        elif change == "rename":
            path.rename(path.with_name("y.parquet"))
        elif change == "add":
            shutil.copy(path, directory / "another.parquet")
        elif change == "remove":
            (directory / "m.parquet").unlink()
        else:
            (directory / "m.parquet").rename(directory / "x")
            (directory / "n.parquet").rename(directory / "m.parquet")
            (directory / "x").rename(directory / "n.parquet")
        assert id_of(directory) != before


@settings(max_examples=30)
@given(
    name=st.sampled_from(
        ["README.md", "x.parquet.tmp", ".x.parquet", "_t/x.parquet", "d/_SUCCESS"]
    ),
    data=st.binary(max_size=20),
)
def test_other_files_change_nothing(name: str, data: bytes) -> None:
    with directory_of({"a": 1, "d/b": 2}) as directory:
        before = id_of(directory)
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(data)
        assert id_of(directory) == before


def test_known_files_are_not_read_again(tmp_path: Path, everything_remembered: list[str]) -> None:
    for name in "abc":
        write_rows(tmp_path / f"{name}.parquet", [row(question=name)])
    first = snapshot_of(tmp_path)
    assert sorted(everything_remembered) == ["a.parquet", "b.parquet", "c.parquet"]
    everything_remembered.clear()
    assert snapshot_of(tmp_path) == first
    assert snapshot_of(tmp_path, 2).file_rows == [1, 1]
    assert everything_remembered == []
    write_rows(tmp_path / "b.parquet", [row(question="B")])
    assert snapshot_of(tmp_path).to_json() == snapshot_json("align-anything", tmp_path)
    assert everything_remembered == ["b.parquet"]


def test_a_touch_costs_a_hash_and_changes_nothing(
    tmp_path: Path, everything_remembered: list[str]
) -> None:
    for name in "ab":
        write_rows(tmp_path / f"{name}.parquet", [row(question=name)])
    first = snapshot_of(tmp_path)
    everything_remembered.clear()
    os.utime(tmp_path / "a.parquet", (1, 1))
    assert snapshot_of(tmp_path) == first
    assert everything_remembered == ["a.parquet"]


def test_small_corpora_leave_the_cache_alone(tmp_path: Path, cache_directory: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row()])
    snapshot_of(tmp_path)
    assert list(cache_directory.iterdir()) == []


def test_a_file_that_changes_meanwhile_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(tmp_path / "a.parquet", [row()])
    list_local = taking.list_local

    def list_then_write(*arguments: Any) -> Any:
        listing = list_local(*arguments)
        write_rows(path, [row(), row()])
        return listing

    monkeypatch.setattr(taking, "list_local", list_then_write)
    with pytest.raises(DataError, match=r"a\.parquet changed while the corpus was opened"):
        snapshot_of(tmp_path)


def test_the_first_bad_file_is_named(tmp_path: Path) -> None:
    for number in range(60):
        path = write_rows(tmp_path / f"{number:02}.parquet", [row(image=b"")])
        if number in {31, 32, 59}:
            path.write_bytes(b"PAR1 and no more")
    for _ in range(5):
        with pytest.raises(DataError, match=r"31\.parquet cannot be read as Parquet"):
            snapshot_of(tmp_path)
    assert snapshot_of(tmp_path, 31).rows == 31


def test_equal_schemas_are_held_once(tmp_path: Path) -> None:
    described = SCHEMA.with_metadata({"huggingface": "{}"})
    for number in range(6):
        schema = SCHEMA if number % 2 else described
        write_rows(tmp_path / f"{number}.parquet", [row()], schema)
    location = taking.LocalUri(tmp_path)
    _, schemas, _ = taking.take_snapshot("x", location, 0)
    assert [(Path(uri).name, schema) for uri, schema in schemas] == [
        ("0.parquet", described),
        ("1.parquet", SCHEMA),
    ]
    assert schemas[0].schema.metadata == {b"huggingface": b"{}"}


def test_objects_are_known_by_their_tags(s3: S3, everything_remembered: list[str]) -> None:
    for name in "abc":
        s3.put(f"set/{name}.parquet", parquet([row(question=name)]))
    first = snapshot_of("s3://corpora/set")
    s3.operations()
    assert snapshot_of("s3://corpora/set") == first
    assert s3.operations() == ["list_objects_v2"]
    s3.put("set/b.parquet", parquet([row(), row()]))
    s3.operations()
    assert snapshot_of("s3://corpora/set").file_rows == [1, 2, 1]
    assert s3.operations() == ["list_objects_v2", "get_object", "list_objects_v2"]


def test_files_on_the_hub_are_known_by_their_content(
    hub: Hub, everything_remembered: list[str]
) -> None:
    data = {f"{name}.parquet": parquet([row(question=name)]) for name in "abc"}
    hub.push(data)
    first = snapshot_of("hf://datasets/owner/pairs")
    hub.push({**data, "README.md": b"another commit", "b.parquet": parquet([row(), row()])})
    hub.requests.clear()
    second = snapshot_of("hf://datasets/owner/pairs")
    assert (first.file_rows, second.file_rows) == ([1, 1, 1], [1, 2, 1])
    resolved = [request for request in hub.requests if "/resolve/" in request]
    assert [request.rpartition("/")[2] for request in resolved] == ["b.parquet"]


def test_schemas_are_read_as_pyarrow_reads_them(tmp_path: Path) -> None:
    odd = pa.schema(
        [
            *SCHEMA,
            pa.field("when", pa.timestamp("ns", "UTC"), metadata={"a": "b"}),
            pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
            pa.field("large", pa.large_list(pa.large_string())),
        ],
        {"pandas": "{}"},
    )
    path = write_rows(tmp_path / "a.parquet", [row()], odd)
    _, schemas, _ = taking.take_snapshot("x", taking.LocalUri(tmp_path), 0)
    with pa.parquet.ParquetFile(path) as file:
        assert schemas[0].schema.equals(file.schema_arrow, check_metadata=True)


@pytest.mark.parametrize("end", [".jsonl", ".arrow"])
def test_files_with_places_are_read_again(
    tmp_path: Path, everything_remembered: list[str], end: str
) -> None:
    """Where their rows are is not remembered; a file without any has no places."""
    table = pa.table({"question": ["one", "two"]})
    for name, rows in {"a": 2, "b": 0, "c": 1}.items():
        (tmp_path / f"{name}{end}").write_bytes(WRITERS[end](table.slice(0, rows)))
    settings_ = CorpusSettings("generic", str(tmp_path), columns=ColumnMap(question="question"))
    first = open_corpus(settings_)
    everything_remembered.clear()
    again = open_corpus(settings_)
    assert (again.snapshot, again.schema) == (first.snapshot, first.schema)
    assert [file.places for file in again.snapshot.files] == [
        file.places for file in first.snapshot.files
    ]
    assert sorted(everything_remembered) == [f"a{end}", f"c{end}"]
    assert again.read(2, 0, 1).to_pylist() == [{"question": "one"}]
