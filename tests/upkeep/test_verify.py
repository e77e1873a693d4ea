from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raysae.artifacts import METADATA_FILE, SPEC_FILE, ShardPlan
from raysae.errors import DataError, SettingsError, StorageError
from raysae.storage import Directory
from raysae.upkeep import hashing, verify
from raysae.upkeep.verify import VerifySettings, run_verify
from tests.upkeep.builders import artifact, new_storage, row_group, sharded, tree, write_scores


def verified(
    root: Directory, capsys: pytest.CaptureFixture[str], **settings: object
) -> tuple[bool, dict]:
    """Whether all is whole, and the document."""
    capsys.readouterr()
    try:
        run_verify(VerifySettings(str(root), json=True, **settings))  # type: ignore[arg-type]
        whole = True
    except DataError:
        whole = False
    (line,) = capsys.readouterr().out.splitlines()
    return whole, json.loads(line)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def data_file(directory: Directory, index: int = 0) -> str:
    return sorted(e.key for e in directory.entries() if e.key.startswith("data/"))[index]


DAMAGE: dict[str, Callable[[Directory, str], object]] = {
    "is missing": lambda directory, name: directory.delete(name),
    "is shorter": lambda directory, name: directory.put_bytes(
        name, directory.read_bytes(name)[:-1]
    ),
    "is longer": lambda directory, name: directory.put_bytes(
        name, directory.read_bytes(name) + b"x"
    ),
    "is altered": lambda directory, name: directory.put_bytes(
        name, flipped(directory.read_bytes(name))
    ),
}


def test_all_is_whole(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    whole = [sharded(root), sharded(root, done=2, number=1), artifact(root, "saes")]
    write_scores(root, row_group(), row_group(10))
    ok, told = verified(root, capsys)
    assert ok
    assert not told["damage"]
    # Per shard two files, the table of shards, the SAE's one, the score table's two.
    assert told["files"] == 3 * 2 + 1 + 2 * 2 + 1 + 2
    assert told["bytes"] > 3000
    assert len(whole) == 3


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_damaged_shard_of_a_finished_artifact(
    root: Directory, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sharded(root, shards=3)
    name = data_file(made.directory, 1)
    DAMAGE[problem](made.directory, name)
    ok, told = verified(root, capsys)
    assert not ok
    (damage,) = told["damage"]
    assert (damage["owner"], damage["shard"], damage["name"]) == (made.name, "shard-00001", name)
    assert damage["problem"].startswith(problem)
    ok, told = verified(root, capsys, repair=True)
    assert not ok
    assert told["removed"] == [
        f"{made.name}/{METADATA_FILE}",
        f"{made.name}/shard-00001.done.json",
    ]
    assert not made.is_finished()
    missing = made.missing(ShardPlan([30], 10))
    assert [shard.name for shard in missing.shards] == ["shard-00001"]
    assert verified(root, capsys)[0]


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_damaged_row_group(
    root: Directory, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_scores(root, row_group(), row_group(10))
    DAMAGE[problem](table.directory, next(table.live()).path)
    ok, told = verified(root, capsys, repair=True)
    assert not ok
    assert [one["owner"] for one in told["damage"]] == ["scores"]
    assert len(told["removed"]) == 1
    groups = [row_group(), row_group(10)]
    missing = table.missing(groups).groups
    assert missing == [row_group()]
    write_scores(root, *missing, publish=False)
    table.publish(groups)
    assert verified(root, capsys)[0]


def test_row_groups_that_are_not_published_are_read_too(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_scores(root, row_group(), publish=False)
    (path,) = (e.key for e in table.directory.entries() if e.key.startswith("data/"))
    DAMAGE["is altered"](table.directory, path)
    assert verified(root, capsys)[1]["damage"][0]["name"] == path


def test_a_file_that_is_no_shards(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    made = artifact(root, "saes", files=("a", "b"))
    DAMAGE["is altered"](made.directory, "a")
    ok, told = verified(root, capsys, repair=True)
    assert not ok
    assert told["removed"] == [f"{made.name}/{METADATA_FILE}"]


def test_marks_and_tables_are_read_too(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    made = sharded(root, shards=3)
    made.directory.put_bytes("shard-00000.done.json", b"no mark")
    made.directory.delete("shard-00001.done.json")
    mark = made.directory.read_json("shard-00002.done.json")
    made.directory.put_json("shard-00002.done.json", {**mark, "files": mark["files"][:1]})
    told = {one["name"]: one["problem"] for one in verified(root, capsys)[1]["damage"]}
    assert set(told) == {f"shard-0000{number}.done.json" for number in range(3)}
    assert told["shard-00001.done.json"] == "is missing"
    assert "other files" in told["shard-00002.done.json"]


def test_a_damaged_table_of_shards_is_written_again(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sharded(root, shards=3)
    (table,) = (e.key for e in made.directory.entries() if e.key.startswith("shards-"))
    DAMAGE["is altered"](made.directory, table)
    DAMAGE["is altered"](made.directory, data_file(made.directory))
    _, told = verified(root, capsys)
    assert {(one["shard"], one["name"]) for one in told["damage"]} == {
        ("", table),
        ("shard-00000", data_file(made.directory)),
    }


def test_damaged_metadata_is_taken_away_and_a_damaged_spec_is_not(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = artifact(root, "saes", number=1), artifact(root, "saes", number=2)
    one.directory.put_bytes(METADATA_FILE, b"x")
    two.directory.put_bytes(SPEC_FILE, b"x")
    _, told = verified(root, capsys, repair=True)
    assert told["removed"] == [f"{one.name}/{METADATA_FILE}"]
    assert {(d["owner"], d["certain"]) for d in told["damage"]} == {
        (one.name, True),
        (two.name, False),
    }


def test_a_damaged_manifest_is_told_and_kept(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_scores(root, row_group())
    table.directory.put_bytes("manifests/00000001.parquet", b"x")
    ok, told = verified(root, capsys, repair=True)
    assert not ok
    assert told["removed"] == []
    assert told["files"] == 1  # by its mark


def test_what_cannot_be_read_is_no_damage_to_repair(
    root: Directory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sharded(root)

    def broken(self: Directory, name: str) -> None:
        raise StorageError("storage: the disk is not there.")

    monkeypatch.setattr(Directory, "stream", broken)
    ok, told = verified(root, capsys, repair=True)
    assert not ok
    assert told["removed"] == []
    assert made.is_finished()


def test_repair_removes_marks_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = new_storage(tmp_path)
    made = sharded(root, shards=3)
    DAMAGE["is altered"](made.directory, data_file(made.directory))
    before = tree(tmp_path)
    verified(root, capsys, repair=True)
    gone = {f"{made.name}/{name}" for name in (METADATA_FILE, "shard-00000.done.json")}
    assert tree(tmp_path) == {name: data for name, data in before.items() if name not in gone}


def test_nothing_is_taken_away_behind_a_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = new_storage(tmp_path / "s")
    made = sharded(root)
    DAMAGE["is missing"](made.directory, data_file(made.directory))
    (tmp_path / "s" / "activations").rename(tmp_path / "elsewhere")
    (tmp_path / "s" / "activations").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        run_verify(VerifySettings(str(root), repair=True))
    assert tree(tmp_path / "elsewhere") == before


def test_what_is_repaired_counts_as_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.upkeep.builders import WEEK, age

    root = new_storage(tmp_path)
    made = sharded(root)
    age(tmp_path, 2 * WEEK)
    DAMAGE["is missing"](made.directory, data_file(made.directory))
    verified(root, capsys, repair=True)
    (spec,) = (entry for entry in made.directory.entries() if entry.key == SPEC_FILE)
    others = [e.modified for e in made.directory.entries() if e.key != SPEC_FILE]
    assert spec.modified > max(others) + WEEK


def test_only_one_artifact_or_the_scores(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    made = artifact(root, "saes")
    sharded(root)
    write_scores(root, row_group())
    assert verified(root, capsys, artifact=made.name)[1]["files"] == 1
    assert verified(root, capsys, artifact="scores")[1]["files"] == 1
    with pytest.raises(SettingsError, match="artifact: 'saes/x'"):
        run_verify(VerifySettings(str(root), artifact="saes/x"))
    with pytest.raises(SettingsError, match="threads"):
        VerifySettings(threads=-1)


def test_sentences_and_progress_for_a_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_storage(tmp_path)
    made = sharded(root)
    name = data_file(made.directory)
    DAMAGE["is altered"](made.directory, name)
    monkeypatch.setattr(verify, "PROGRESS_S", 0.0)
    with pytest.raises(DataError, match=f"1 thing is damaged in {made.name}; .* --repair"):
        run_verify(VerifySettings(str(tmp_path)))
    lines = capsys.readouterr().out.splitlines()
    assert (
        f"verify: damaged: {made.name}, shard-00000: {name} is altered: its bytes are not those "
        "written; --repair and the job that made the artifact make this shard again"
    ) in lines
    assert lines[-1].startswith("verify: read 7 files, ")
    assert lines[-1].endswith("1 damaged")
    assert any("damaged so far" in line for line in lines)


def test_large_files_go_through_a_small_buffer(tmp_path: Path) -> None:
    """Sixteen megabytes in pieces of four, twice: pieces do not outlive the next one."""
    root = new_storage(tmp_path)
    made = sharded(root, shards=2, shard_bytes=(16 << 20) + 2)
    assert run_verify(VerifySettings(str(tmp_path))).bytes > 32 << 20
    sizes = {len(piece) for piece in made.directory.stream(data_file(made.directory))}
    assert sizes == {4 << 20, 2}


def test_few_files_wait_at_a_time(root: Directory) -> None:
    made = sharded(root, shards=20)
    asked = 0

    def checks():
        nonlocal asked
        for name in [e.key for e in made.directory.entries() if e.key.startswith("data/")]:
            asked += 1
            record = hashing.FileRecord(name, 1000, "0" * 64)
            yield hashing.Check("x", "", made.directory, record)

    ends = hashing.compare_all(checks(), 2, lambda _: None, lambda: None)
    next(ends)
    assert asked <= 2 * hashing.WAITING
    assert len(list(ends)) == 19
