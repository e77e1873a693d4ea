from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae import artifacts
from raysae.artifacts import (
    Artifact,
    ArtifactSpec,
    ShardSpec,
    content_id,
    file_sha256,
    package_versions,
    plan_shards,
    read_json,
)
from raysae.errors import DataError

SPEC = ArtifactSpec("things", 1, {"k": 3, "sub": {"a": 1, "b": (1, 2)}}, {"input": "abc"})

KEYS = st.text(max_size=3)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | KEYS
VALUES = st.recursive(
    LEAVES.filter(lambda value: value not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def reordered(value: Any) -> Any:
    """The same content with every dictionary's keys in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_the_order_of_keys_does_not_change_an_id(value: Any) -> None:
    assert content_id(reordered(value)) == content_id(value)


@given(VALUES, VALUES)
def test_ids_differ_exactly_where_content_does(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_id(one) == content_id(other)) == same


def test_ids_have_96_bits_of_hex() -> None:
    assert len(content_id({})) == 24
    assert int(content_id({}), 16) >= 0


def test_dataclasses_and_tuples_count_as_what_json_makes_of_them() -> None:
    @dataclass
    class Settings:
        a: int
        b: tuple[int, ...]

    assert content_id(Settings(1, (2, 3))) == content_id({"b": [2, 3], "a": 1})


def test_not_a_number_has_no_id() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        content_id({"lr": float("nan")})


def changed(**changes: Any) -> ArtifactSpec:
    return ArtifactSpec(**{**vars(SPEC), **changes})


@pytest.mark.parametrize(
    "other",
    [
        changed(kind="others"),
        changed(code_version=2),
        changed(settings={"k": 4, "sub": {"a": 1, "b": (1, 2)}}),
        changed(settings={"k": 3, "sub": {"a": 1, "b": (2, 1)}}),
        changed(settings={"k": 3, "sub": {"a": 1, "b": (1, 2)}, "new": None}),
        changed(inputs={"input": "abd"}),
        changed(inputs={}),
    ],
)
def test_any_change_of_content_changes_an_artifacts_id(other: ArtifactSpec) -> None:
    assert other.id != SPEC.id


def test_the_format_version_is_part_of_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SPEC.id
    monkeypatch.setattr(artifacts, "FORMAT_VERSION", artifacts.FORMAT_VERSION + 1)
    assert SPEC.id != before


def test_the_root_is_no_part_of_the_id(tmp_path: Path) -> None:
    one, other = Artifact(tmp_path / "a", SPEC), Artifact(tmp_path / "b", SPEC)
    assert one.id == other.id
    assert one.name == f"things/{SPEC.id}"
    assert one.directory == tmp_path / "a" / "things" / SPEC.id


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(1, 12))
def test_shards_hold_every_row_once_and_none_spans_two_files(
    file_rows: Sequence[int], rows_per_shard: int
) -> None:
    shards = plan_shards(file_rows, rows_per_shard)
    seen = [
        (shard.file_index, row, shard.first_ordinal + row - shard.start)
        for shard in shards
        for row in range(shard.start, shard.stop)
    ]
    rows = [(file, row) for file, count in enumerate(file_rows) for row in range(count)]
    assert seen == [(file, row, ordinal) for ordinal, (file, row) in enumerate(rows)]
    assert all(1 <= shard.rows <= rows_per_shard for shard in shards)
    names = [shard.name for shard in shards]
    assert sorted(set(names)) == names
    assert plan_shards(tuple(file_rows), rows_per_shard) == shards


def test_a_new_artifact_is_not_finished(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, SPEC)
    assert not artifact.is_finished()
    artifact.begin()
    artifact.begin()
    assert not artifact.is_finished()
    with pytest.raises(DataError, match="is not finished"):
        artifact.metadata()


def test_metadata_says_what_and_with_which_packages(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, SPEC)
    artifact.begin()
    artifact.finish({"rows": 3})
    assert artifact.is_finished()
    metadata = artifact.metadata()
    assert metadata["id"] == SPEC.id
    assert metadata["spec"] == read_json(artifact.directory / "spec.json") == SPEC.to_json()
    assert metadata["rows"] == 3
    assert metadata["packages"] == package_versions()
    assert metadata["packages"]["torch"] != "not installed"


def test_the_stored_settings_are_compared_not_trusted(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, SPEC)
    artifact.begin()
    artifact.finish({})
    for name, opened in (("spec", artifact.begin), ("metadata", artifact.is_finished)):
        path = artifact.directory / f"{name}.json"
        path.write_text(path.read_text().replace('"k": 3', '"k": 4'))
        with pytest.raises(DataError, match=rf"{name}\.json was written for other settings"):
            opened()


def test_looking_whether_an_artifact_is_finished_writes_nothing(tmp_path: Path) -> None:
    artifact = Artifact(tmp_path, SPEC)
    artifact.finish({})
    assert artifact.is_finished()
    assert [path.name for path in artifact.directory.iterdir()] == ["metadata.json"]


@pytest.mark.parametrize("damage", [b"", b'{"k": ', b"[1]", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path: Path, damage: bytes) -> None:
    artifact = Artifact(tmp_path, SPEC)
    artifact.begin()
    (artifact.directory / "spec.json").write_bytes(damage)
    with pytest.raises(DataError, match=r"spec\.json .*delete it and run again"):
        artifact.begin()


@pytest.fixture
def marked(tmp_path: Path) -> Artifact:
    artifact = Artifact(tmp_path, SPEC)
    artifact.begin()
    (artifact.directory / "a.arrow").write_bytes(b"12345")
    (artifact.directory / "b.arrow").write_bytes(b"")
    artifact.mark_shard("shard-00000", ["a.arrow", "b.arrow"], {"rows": 2})
    return artifact


def test_a_mark_names_files_sizes_and_checksums(marked: Artifact) -> None:
    assert marked.shard_mark("shard-00000") == {
        "rows": 2,
        "files": [
            {"name": name, "size": size, "sha256": file_sha256(marked.directory / name)}
            for name, size in (("a.arrow", 5), ("b.arrow", 0))
        ],
    }
    assert marked.shard_mark("shard-00001") is None


def test_a_mark_without_its_file_is_no_mark(marked: Artifact) -> None:
    (marked.directory / "b.arrow").unlink()
    assert marked.shard_mark("shard-00000") is None


@pytest.mark.parametrize("content", [b"1234", b"123456", b""])
def test_a_mark_whose_file_has_another_size_is_no_mark(marked: Artifact, content: bytes) -> None:
    (marked.directory / "a.arrow").write_bytes(content)
    assert marked.shard_mark("shard-00000") is None


def test_a_shard_is_not_marked_before_its_files_are_there(marked: Artifact) -> None:
    with pytest.raises(FileNotFoundError):
        marked.mark_shard("shard-00001", ["nowhere.arrow"], {})
    assert marked.shard_mark("shard-00001") is None


def test_missing_shards_come_in_order(marked: Artifact) -> None:
    shards = [ShardSpec(f"shard-{n:05d}", 0, n, n + 1, n) for n in range(3)]
    assert marked.missing_shards(shards) == shards[1:]


def test_an_interrupted_finish_leaves_the_artifact_unfinished(
    marked: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            marked.finish({"rows": 2})
    assert not marked.is_finished()
    assert marked.shard_mark("shard-00000") is not None
    marked.finish({"rows": 2})
    assert marked.is_finished()
