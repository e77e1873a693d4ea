from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.artifacts import FileRecord, ShardPlan, ShardState, publish_bytes
from raysae.artifacts.marks import mark_name, parse_mark, read_mark, read_marks, write_mark
from raysae.errors import StorageError
from raysae.storage import Directory, to_json
from raysae.storage.local import LocalBackend
from tests.storage.fake_store import Store, fake_backend

SHARD = "shard-00000"

ROWS: dict[str, Any] = {"rows": 2, "rejected": 0, "rejections": []}
"""What every mark tells."""

REJECTION = {"sample_id": "x", "ordinal": 1, "reason": "no-image", "detail": ""}


@pytest.fixture
def directory(storage_root: Directory) -> Directory:
    return storage_root / "kind" / "id"


@pytest.fixture
def files(directory: Directory) -> list[FileRecord]:
    """Two files of a shard."""
    return [publish_bytes(directory, f"{SHARD}.{n}", b"x" * n) for n in (5, 0)]


def names(directory: Directory) -> list[str]:
    return [entry.key for entry in directory.entries()]


def test_a_mark_names_files_sizes_and_checksums(
    directory: Directory, files: list[FileRecord]
) -> None:
    mark = write_mark(directory, SHARD, files, ROWS)
    assert mark == {
        **ROWS,
        "files": [{"name": f.name, "size": f.size, "sha256": f.sha256} for f in files],
    }
    assert read_mark(directory, SHARD) == mark == directory.read_json(mark_name(SHARD))
    assert read_mark(directory, "shard-00001") is None


CONTENT = st.dictionaries(
    st.text(max_size=5).filter(lambda key: key not in {"files", *ROWS}),
    st.integers() | st.text() | st.lists(st.integers()),
    max_size=4,
).map(lambda added: {**ROWS, **added})


@given(CONTENT, st.lists(st.binary(max_size=5), max_size=4))
def test_a_mark_is_read_as_it_was_written(content: dict[str, Any], data: list[bytes]) -> None:
    directory = Directory(fake_backend(Store()))
    files = [publish_bytes(directory, f"{n}", one) for n, one in enumerate(data)]
    mark = write_mark(directory, SHARD, files, content)
    assert read_mark(directory, SHARD) == mark
    assert {key: mark[key] for key in content} == content
    again = Directory(fake_backend(Store()))
    for n, one in enumerate(data):
        publish_bytes(again, f"{n}", one)
    write_mark(again, SHARD, files, dict(reversed(list(content.items()))))
    assert again.read_bytes(mark_name(SHARD)) == directory.read_bytes(mark_name(SHARD))


def test_the_first_mark_counts_and_the_others_files_go(
    directory: Directory, files: list[FileRecord]
) -> None:
    first = write_mark(directory, SHARD, files, ROWS)
    mine = [publish_bytes(directory, f"{SHARD}.other", b"other bits"), files[1]]
    assert write_mark(directory, SHARD, mine, ROWS) == first
    assert names(directory) == sorted([mark_name(SHARD), *(f.name for f in files)])


def test_the_same_files_stay(directory: Directory, files: list[FileRecord]) -> None:
    first = write_mark(directory, SHARD, files, {**ROWS, "seconds": 1})
    assert write_mark(directory, SHARD, files, {**ROWS, "seconds": 2}) == first
    assert read_mark(directory, SHARD) == first


def test_where_nothing_can_be_deleted_the_first_mark_counts(tmp_path: Path) -> None:
    class Keeping(LocalBackend):
        def delete(self, key: str) -> None:
            raise StorageError("storage: denied.")

    directory = Directory(Keeping(tmp_path))
    first = write_mark(directory, SHARD, [publish_bytes(directory, "a", b"a")], ROWS)
    assert write_mark(directory, SHARD, [publish_bytes(directory, "b", b"b")], ROWS) == first
    assert names(directory) == ["a", "b", mark_name(SHARD)]


@pytest.mark.parametrize("damage", ["gone", "short", "long", "empty"])
def test_a_mark_whose_file_is_not_as_listed_is_none(
    directory: Directory, files: list[FileRecord], damage: str
) -> None:
    write_mark(directory, SHARD, files, ROWS)
    if damage == "gone":
        directory.delete(files[0].name)
    else:
        content = {"short": b"1234", "long": b"123456", "empty": b""}[damage]
        directory.put_bytes(files[0].name, content)
    (state,) = read_marks(directory, [SHARD])
    assert state.mark is None
    assert f"id/{files[0].name} " in state.problem
    assert "missing" in state.problem or "instead of 5" in state.problem
    mine = [publish_bytes(directory, f"{SHARD}.again", b"again")]
    mark = write_mark(directory, SHARD, mine, ROWS)
    assert read_mark(directory, SHARD) == mark


def listing(**changes: object) -> bytes:
    return mark_of(files=[{"name": "a", "size": 1, "sha256": "x", **changes}])


def mark_of(**changes: object) -> bytes:
    """A mark without files, but for some changes; what is None is left out."""
    content = {**ROWS, "files": [], **changes}
    return json.dumps({k: value for k, value in content.items() if value is not None}).encode()


GARBAGE = {
    "empty": b"",
    "cut short": b'{"files": [{"na',
    "no text": b"\xff\xfe\x00",
    "no object": b"[]",
    "zeros": bytes(100),
    "no files": mark_of(files=None),
    "files of another kind": mark_of(files=5),
    "a file of another kind": mark_of(files=["a"]),
    "a name of another kind": listing(name=5),
    "a size of another kind": listing(size="1"),
    "no checksum": listing(sha256=None),
    "outside": listing(name="../../spec.json"),
    "absolute": listing(name="/etc/passwd"),
    "half a character": listing(name="\ud800"),
    "no rows": mark_of(rows=None),
    "rows that are a truth": mark_of(rows=True),
    "rows that are text": mark_of(rows="2"),
    "rows below zero": mark_of(rows=-1),
    "no rejected": mark_of(rejected=None),
    "rejected that are half": mark_of(rejected=0.5),
    "no rejections": mark_of(rejections=None),
    "rejections by reason": mark_of(rejections={"no-image": 1}),
    "a rejection that is text": mark_of(rejections=["no-image"]),
    "a rejection without a reason": mark_of(rejections=[{**REJECTION, "reason": None}]),
    "a rejection of another kind": mark_of(rejections=[{**REJECTION, "ordinal": "1"}]),
    "a rejection with more": mark_of(rejections=[{**REJECTION, "colour": "red"}]),
}


@pytest.mark.parametrize("data", [mark_of(), mark_of(rejected=1, rejections=[REJECTION])])
def test_a_whole_mark_is_one(data: bytes) -> None:
    assert parse_mark(data, "here") == json.loads(data)


@pytest.mark.parametrize("kind", sorted(GARBAGE))
def test_garbage_is_no_mark_and_is_replaced(directory: Directory, kind: str) -> None:
    directory.put_bytes("a", b"x")
    directory.put_bytes(mark_name(SHARD), GARBAGE[kind])
    (state,) = read_marks(directory, [SHARD])
    assert state == ShardState(SHARD, None, state.problem)
    assert "delete" in state.problem
    files = [publish_bytes(directory, "b", b"x")]
    mark = write_mark(directory, SHARD, files, ROWS)
    assert read_mark(directory, SHARD) == mark
    assert directory.read_bytes("a") == b"x"


def test_a_mark_of_a_file_that_no_file_system_can_hold_is_none(tmp_path: Path) -> None:
    directory = Directory(LocalBackend(tmp_path))
    directory.put_bytes(mark_name(SHARD), listing(name="x" * 300))
    (state,) = read_marks(directory, [SHARD])
    assert (state.mark, "is missing" in state.problem) == (None, True)


@pytest.mark.parametrize("rows", [0, 1, 5, 2100])
def test_many_marks_come_in_order(tmp_path: Path, rows: int) -> None:
    directory = Directory(LocalBackend(tmp_path))
    plan = ShardPlan([rows], 1)
    for number, shard in enumerate(plan):
        if number % 3:
            (tmp_path / shard.name).write_bytes(b"x" * (number % 5))
            files = [FileRecord(shard.name, number % 5, "")]
            (tmp_path / mark_name(shard.name)).write_bytes(
                to_json({**ROWS, "number": number, "files": [vars(f) for f in files]})
            )
        if number % 7 == 1:
            (tmp_path / shard.name).unlink(missing_ok=True)
    states = list(read_marks(directory, (shard.name for shard in plan)))
    assert [state.shard for state in states] == [shard.name for shard in plan]
    for number, state in enumerate(states):
        complete = bool(number % 3) and number % 7 != 1
        assert (state.mark or {}).get("number") == (number if complete else None)
        assert bool(state.problem) == (number % 3 != 0 and number % 7 == 1)


def test_marks_of_many_shards_are_few_requests() -> None:
    store = Store()
    requests: list[str] = []
    directory = Directory(fake_backend(store, lambda name, _: requests.append(name)))
    names = [f"shard-{number:05d}" for number in range(1000)]
    for name in names:
        store.objects[f"bucket/pre fix/{name}.done.json"] = to_json(
            {**ROWS, "files": [{"name": f"{name}.x", "size": 1, "sha256": ""}]}
        )
        store.objects[f"bucket/pre fix/{name}.x"] = b"x"
    assert all(state.mark for state in read_marks(directory, names))
    assert requests.count("list") == 2
    assert len(requests) <= 2 + 4
