from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysae.artifacts import (
    CHECKSUM,
    METADATA_FILE,
    SPEC_FILE,
    Artifact,
    ArtifactSpec,
    Publication,
    ShardPlan,
    artifact,
    package_versions,
)
from raysae.errors import DataError, StorageError
from raysae.storage import Directory
from raysae.storage.local import LocalBackend
from tests.storage.fake_store import Store, fake_backend

SPEC = ArtifactSpec("things", 1, {"k": 3, "sub": {"a": 1, "b": (1, 2)}}, {"input": "abc"})
PLAN = ShardPlan([3, 2], 2)


@pytest.fixture
def made(storage_root: Directory) -> Artifact:
    return Artifact(storage_root, SPEC)


def make_shard(made: Artifact, shard: str, bits: str = "") -> None:
    publication = Publication(made.directory)
    with publication.writing(f"{shard}-{CHECKSUM}.txt") as local:
        local.write_text(f"rows of {shard}{bits}")
    made.mark_shard(shard, publication.records, {"rows": 2, "rejected": 0, "rejections": []})


def make(made: Artifact, bits: str = "") -> None:
    """What a stage does."""
    made.begin(len(PLAN))
    for shard in made.missing(PLAN).shards:
        make_shard(made, shard.name, bits)
    made.finish({"rows": 5}, shards=PLAN)


def names(made: Artifact) -> list[str]:
    return [entry.key for entry in made.directory.entries()]


def changed(**changes: Any) -> ArtifactSpec:
    return ArtifactSpec(**{"inputs": SPEC.inputs, **_fields(), **changes})


def _fields() -> dict[str, Any]:
    return {key: getattr(SPEC, key) for key in ("kind", "code_version", "settings", "inputs")}


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
def test_any_change_of_content_changes_the_id(other: ArtifactSpec) -> None:
    assert other.id != SPEC.id


def test_the_same_content_has_the_same_id() -> None:
    same = changed(settings={"sub": {"b": [1, 2], "a": 1}, "k": 3})
    assert same.id == SPEC.id
    assert same.to_json() == SPEC.to_json() == json.loads(json.dumps(SPEC.to_json()))


def test_the_format_version_is_part_of_the_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "FORMAT_VERSION", artifact.FORMAT_VERSION + 1)
    assert changed().id != SPEC.id


def test_the_storage_is_no_part_of_the_id(tmp_path: Path) -> None:
    one = Artifact(Directory(LocalBackend(tmp_path)), SPEC)
    other = Artifact(Directory(fake_backend(Store())), SPEC)
    assert one.id == other.id == SPEC.id
    assert one.name == other.name == f"things/{SPEC.id}"
    assert str(one.directory) == str(tmp_path / "things" / SPEC.id)


def test_a_new_artifact_is_not_finished(made: Artifact) -> None:
    assert not made.is_finished()
    assert names(made) == []
    made.begin(7)
    made.begin(8)
    assert not made.is_finished()
    assert made.directory.read_json(SPEC_FILE) == {"spec": SPEC.to_json(), "shards": 8}
    with pytest.raises(DataError, match=r"is not finished; run the job"):
        made.metadata()


def test_metadata_says_what_and_with_which_packages(made: Artifact) -> None:
    make(made)
    assert made.is_finished()
    metadata = made.metadata()
    assert metadata["id"] == SPEC.id
    assert metadata["spec"] == SPEC.to_json()
    assert metadata["rows"] == 5
    assert metadata["packages"] == package_versions()
    assert [file["name"][:7] for file in metadata["files"]] == ["shards-"]
    assert not made.missing(PLAN).shards
    assert [mark["rows"] for mark in made.marks(PLAN)] == [2, 2, 2]


def test_an_artifact_without_shards_lists_its_files(made: Artifact) -> None:
    publication = Publication(made.directory)
    publication.put_bytes("cfg.json", b"{}")
    made.finish({}, publication.records)
    assert made.is_finished()
    assert [file["name"] for file in made.metadata()["files"]] == ["cfg.json"]
    made.directory.delete("cfg.json")
    assert not made.is_finished()


def test_looking_writes_nothing(made: Artifact) -> None:
    make(made)
    before = names(made)
    assert made.is_finished()
    assert made.missing(PLAN).shards == []
    assert len(list(made.marks(PLAN))) == len(PLAN)
    assert names(made) == before


@pytest.mark.parametrize(
    ("name", "look"), [(SPEC_FILE, Artifact.begin), (METADATA_FILE, Artifact.is_finished)]
)
def test_the_stored_settings_are_compared_not_trusted(made: Artifact, name: str, look: Any) -> None:
    make(made)
    stored = made.directory.read_bytes(name)
    made.directory.put_bytes(name, stored.replace(b'"k": 3', b'"k": 4'))
    with pytest.raises(DataError, match=rf"{name} was written for other settings.*move the dir"):
        look(made)
    made.directory.put_bytes(name, stored[:-10])
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        look(made)


def test_metadata_that_lists_nothing_is_named(made: Artifact) -> None:
    make(made)
    metadata = made.metadata()
    for files in (None, [{}], 5):
        made.directory.put_json(METADATA_FILE, {**metadata, "files": files})
        with pytest.raises(DataError, match=r"metadata\.json lists no files; delete it"):
            made.is_finished()


def test_metadata_that_names_files_outside_is_refused(made: Artifact) -> None:
    make(made)
    outside = [{"name": "../x", "size": 1, "sha256": ""}]
    made.directory.put_json(METADATA_FILE, {**made.metadata(), "files": outside})
    with pytest.raises(StorageError, match="no name below a storage"):
        made.is_finished()


def test_missing_shards_come_in_order_with_what_happened_to_them(made: Artifact) -> None:
    assert made.missing(PLAN) == (list(PLAN), [])
    make_shard(made, "shard-00001")
    make_shard(made, "shard-00002")
    (lost,) = [name for name in names(made) if name.startswith("shard-00002-")]
    made.directory.delete(lost)
    found = made.missing(PLAN)
    assert found.shards == [PLAN[0], PLAN[2]]
    assert len(found.problems) == 1
    assert found.problems[0].startswith("shard-00002: ")
    assert found.problems[0].endswith("is missing")


def test_an_artifact_with_a_missing_shard_is_not_finished(made: Artifact) -> None:
    made.begin(3)
    make_shard(made, "shard-00000")
    with pytest.raises(DataError, match=r"shard-00001 is not complete; run the job again"):
        made.finish({}, shards=PLAN)
    assert not made.is_finished()
    assert not any(name.startswith("shards-") for name in names(made))


@pytest.mark.parametrize("lost", ["shard-00001-", "shards-"])
@pytest.mark.parametrize("bits", ["", " of another machine"])
def test_a_file_that_is_lost_is_made_again(made: Artifact, lost: str, bits: str) -> None:
    make(made)
    before = names(made)
    (name,) = [name for name in before if name.startswith(lost)]
    made.directory.delete(name)
    assert not made.is_finished()
    make(made, bits)
    assert made.is_finished()
    listed = [file["name"] for mark in made.marks(PLAN) for file in mark["files"]]
    assert set(listed) <= set(names(made))
    if not bits:
        assert names(made) == before


def test_a_mark_that_is_lost_is_written_again(made: Artifact) -> None:
    """Who reads an artifact reads its marks too, so that it is not finished without them."""
    make(made)
    before = names(made)
    made.directory.delete("shard-00001.done.json")
    assert not made.is_finished()
    make(made)
    assert names(made) == before
    assert len(list(made.marks(PLAN))) == len(PLAN)


@pytest.mark.parametrize("lost", ["data", "mark", "both"])
def test_what_another_machine_mends_is_listed_as_it_is(made: Artifact, lost: str) -> None:
    make(made)
    (name,) = [name for name in names(made) if name.startswith("shard-00001-")]
    for gone in {"data": [name], "mark": [], "both": [name]}[lost]:
        made.directory.delete(gone)
    if lost != "data":
        made.directory.delete("shard-00001.done.json")
    make(made, " of another machine")
    (table,) = made.metadata()["files"]
    listed = pq.read_table(pa.BufferReader(made.directory.read_bytes(table["name"])))
    marked = [file["name"] for mark in made.marks(PLAN) for file in mark["files"]]
    assert listed["name"].to_pylist() == marked
    assert made.is_finished()


def test_files_that_another_run_replaced_are_listed_as_they_are(made: Artifact) -> None:
    """Checkpoints have fixed names: the last one that was written is what is there."""
    for content in (b"one's", b"other"):
        publication = Publication(made.directory)
        publication.put_bytes("weights", content)
        made.finish({}, publication.records)
        (file,) = made.metadata()["files"]
        assert file["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_first_that_finishes_stays(made: Artifact) -> None:
    make(made)
    first = made.metadata()
    made.finish({"rows": 6}, shards=PLAN)
    assert made.metadata() == first


def test_attempts_are_forgotten_when_all_is_done(made: Artifact) -> None:
    made.begin()
    made.attempts("work")._begin("shard-00000")
    made.attempts("read")._begin("shard-00000")
    assert len([name for name in names(made) if name.startswith("attempts/")]) == 2
    make(made)
    assert not any(name.startswith("attempts/") for name in names(made))


def test_an_interrupted_finish_leaves_the_artifact_unfinished(tmp_path: Path) -> None:
    class Stopping(LocalBackend):
        def create(self, key: str, data: bytes) -> bool:
            if key.endswith(METADATA_FILE):
                raise KeyboardInterrupt
            return super().create(key, data)

    with pytest.raises(KeyboardInterrupt):
        make(Artifact(Directory(Stopping(tmp_path)), SPEC))
    made = Artifact(Directory(LocalBackend(tmp_path)), SPEC)
    assert not made.is_finished()
    assert not made.missing(PLAN).shards
    make(made)
    assert made.is_finished()


def test_local_and_object_storages_hold_the_same_artifact(
    tmp_path: Path, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, but for the time at which it was finished."""
    from raysae.storage import open_storage

    monkeypatch.setattr("raysae.artifacts.artifact.time.strftime", lambda *_: "now")
    roots = [
        open_storage(str(tmp_path / "storage")),
        open_storage(f"s3://raysae-tests/{tmp_path.name}"),
        Directory(fake_backend(Store())),
    ]
    found = []
    for root in roots:
        made = Artifact(root, SPEC)
        make(made)
        found.append({name: made.directory.read_bytes(name) for name in names(made)})
    assert found[0] == found[1] == found[2]
    assert sorted(name[:12] for name in found[0]) == sorted(
        [
            *(f"shard-0000{n}{end}" for n in range(3) for end in "-."),
            METADATA_FILE[:12],
            SPEC_FILE,
            next(name[:12] for name in found[0] if name.startswith("shards-")),
        ]
    )
