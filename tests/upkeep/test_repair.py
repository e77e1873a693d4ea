from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysae.artifacts import METADATA_FILE, SPEC_FILE, RowGroup, ScoreTable, score_files
from raysae.errors import DataError, StorageError
from raysae.storage import Directory
from raysae.upkeep import verify
from raysae.upkeep.verify import VerifySettings, run_verify
from tests.upkeep.builders import (
    INPUTS,
    artifact,
    new_storage,
    row_group,
    scores_of,
    sharded,
    tree,
    write_scores,
)
from tests.upkeep.helpers import DAMAGE, data_file, verified


def test_repair_removes_marks_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = new_storage(tmp_path)
    made = sharded(root, shards=3)
    DAMAGE["is altered"](made.directory, data_file(made.directory))
    before = tree(tmp_path)
    verified(root, capsys, repair=True)
    gone = {f"{made.name}/{name}" for name in (METADATA_FILE, "shard-00000.done.json")}
    assert tree(tmp_path) == {name: data for name, data in before.items() if name not in gone}


def altered(table: ScoreTable, group: RowGroup) -> str:
    """Alter a row group's data file, and return its name."""
    name: str = table.mark(group)["files"][0]["name"]  # type: ignore[index]
    DAMAGE["is altered"](table.directory, name)
    return name


def test_damaged_scores_are_made_again_with_other_bytes(
    root: Directory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine computes other bits; and a manifest saves many marks from being read."""
    monkeypatch.setattr(score_files, "MANY", 1)
    groups = [row_group(start) for start in (0, 10, 20)]
    table = write_scores(root, *groups, extra=INPUTS)
    name = altered(table, groups[1])
    _, told = verified(root, capsys, repair=True)
    mark = f"{groups[1].shard}.done.json"
    assert told["removed"] == [f"scores/{mark}", f"scores/{name}"]
    assert table.missing(groups).groups == [groups[1]]
    table.write(groups[1], scores_of(groups[1], 0.5), {"rejected": 0, "rejections": [], **INPUTS})
    table.publish(groups, "s")
    assert verified(root, capsys)[0]
    assert table.read(groups)["score"].to_pylist()[10:20] == [10.5 + n for n in range(10)]


def test_nothing_is_taken_away_behind_a_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = new_storage(tmp_path / "s")
    made, sae = sharded(root), artifact(root, "saes")
    DAMAGE["is missing"](made.directory, data_file(made.directory))
    DAMAGE["is missing"](sae.directory, "data.bin")
    (tmp_path / "s" / "activations").rename(tmp_path / "elsewhere")
    (tmp_path / "s" / "activations").symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    there = "symbolic link, .*: delete metadata.json, shard-00000.done.json there by hand; then run"
    with pytest.raises(StorageError, match=there):
        run_verify(VerifySettings(str(root), repair=True, json=True))
    assert tree(tmp_path / "elsewhere") == before
    assert not sae.directory.exists(METADATA_FILE)
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["removed"] == [f"{sae.name}/{METADATA_FILE}"]


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


def test_altered_metadata_are_left_to_a_person(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    made = artifact(root, "saes")
    metadata = made.directory.read_json(METADATA_FILE)
    made.directory.put_json(METADATA_FILE, {**metadata, "id": "0" * 24})
    _, told = verified(root, capsys, repair=True)
    assert told["removed"] == []
    with pytest.raises(DataError):
        run_verify(VerifySettings(str(root)))
    assert "delete it by hand and run jobs/train.py" in capsys.readouterr().out


def test_the_second_repair_names_the_jobs_too(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_scores(root, row_group(), extra=INPUTS)
    altered(table, row_group())
    for _ in range(2):
        with pytest.raises(DataError, match="; run the jobs that are named above"):
            run_verify(VerifySettings(str(root), repair=True))


def test_what_was_made_again_while_the_rest_was_read_stays(
    root: Directory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = artifact(root, "saes")
    DAMAGE["is missing"](made.directory, "data.bin")
    say = verify._Progress.say

    def beside(self: verify._Progress, line: str) -> None:
        if "1 damaged" in line:
            made.directory.delete(METADATA_FILE)
            artifact(root, "saes")
        say(self, line)

    monkeypatch.setattr(verify._Progress, "say", beside)
    _, told = verified(root, capsys, repair=True)
    assert len(told["damage"]) == 1
    assert told["removed"] == []
    assert made.is_finished()


@pytest.mark.parametrize(
    ("damaged", "kept"), [("data.bin", False), (METADATA_FILE, True), ("shard", True)]
)
def test_what_a_killed_run_left_goes_where_it_is_damaged_too(
    root: Directory, capsys: pytest.CaptureFixture[str], damaged: str, kept: bool
) -> None:
    made = sharded(root, "weights") if damaged == "shard" else artifact(root, "saes")
    made.directory.put_json("work/outcome.json", {})
    name = data_file(made.directory) if damaged == "shard" else damaged
    made.directory.put_bytes(name, b"x")
    verified(root, capsys, repair=True)
    assert not made.is_finished()
    assert made.directory.exists("work/outcome.json") == kept


def test_scores_behind_a_link_that_were_deleted_by_hand_are_named_with_their_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = new_storage(tmp_path / "s")
    table = write_scores(root, row_group())
    for name in table.files_of(1):
        table.directory.delete(name)
    (tmp_path / "s" / "scores").rename(tmp_path / "elsewhere")
    (tmp_path / "s" / "scores").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="; run the jobs that are named above"):
        run_verify(VerifySettings(str(root), repair=True))
