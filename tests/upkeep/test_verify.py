from __future__ import annotations

from pathlib import Path

import pytest

from raysae.artifacts import METADATA_FILE, ShardPlan
from raysae.errors import DataError, SettingsError
from raysae.storage import Directory
from raysae.upkeep import verify
from raysae.upkeep.verify import VerifySettings, run_verify
from tests.upkeep.builders import artifact, new_storage, row_group, sharded, write_scores
from tests.upkeep.helpers import DAMAGE, data_file, verified


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
    assert len(told["removed"]) == (1 if problem == "is missing" else 2)
    groups = [row_group(), row_group(10)]
    missing = table.missing(groups).groups
    assert missing == [row_group()]
    write_scores(root, *missing, publish=False)
    table.publish(groups, "s")
    assert verified(root, capsys)[0]


def test_a_file_that_is_no_shards(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    made = artifact(root, "saes", files=("a", "b"))
    DAMAGE["is altered"](made.directory, "a")
    ok, told = verified(root, capsys, repair=True)
    assert not ok
    assert told["removed"] == [f"{made.name}/{METADATA_FILE}"]


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
        "written; --repair and jobs/cache.py make this shard again"
    ) in lines
    assert lines[-1].startswith("verify: read 7 files, ")
    assert lines[-1].endswith("1 damaged")
    assert any("damaged so far" in line for line in lines)
