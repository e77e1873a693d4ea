from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysae.artifacts import METADATA_FILE
from raysae.errors import DataError, SettingsError
from raysae.storage import Directory
from raysae.upkeep.artifact_status import SHOWN_PROBLEMS, artifact_status
from raysae.upkeep.inventory import artifacts
from raysae.upkeep.score_status import score_status
from raysae.upkeep.status import StatusSettings, run_status
from tests.upkeep.builders import artifact, new_storage, row_group, sharded, tree, write_scores


def document(root: Directory, capsys: pytest.CaptureFixture[str], **settings: str) -> dict:
    capsys.readouterr()
    run_status(StatusSettings(str(root), json=True, **settings))
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_finished_half_done_and_scores(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    cache = sharded(root, shards=4)
    half = sharded(root, shards=5, done=2, number=1)
    sae = artifact(root, "saes", {"activations": cache.id})
    write_scores(root, row_group(), row_group(10), row_group(scorer="clip"))
    told = {one["name"]: one for one in document(root, capsys)["artifacts"]}
    assert told[cache.name]["state"] == "finished"
    assert (told[cache.name]["shards"], told[cache.name]["rows"]) == (4, 38)
    assert told[cache.name]["reasons"] == {"no-image": 2}
    assert told[cache.name]["used_by"] == [sae.name]
    assert told[sae.name]["inputs"] == [cache.name]
    assert told[half.name]["state"] == "unfinished"
    assert (told[half.name]["shards"], told[half.name]["planned"]) == (2, 5)
    assert (told[half.name]["rows"], told[half.name]["rejected"]) == (19, 1)
    scores = score_status(root)
    assert scores is not None
    assert (scores.manifest, scores.groups, scores.rows) == (1, 3, 30)
    assert scores.by_corpus == {"corpus": {"union": 20, "clip": 10}}
    assert scores.unlisted == (0, 0)
    assert not scores.problems


def test_text_has_a_line_for_each_artifact(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, half = sharded(root, shards=4), sharded(root, shards=5, done=2, number=1)
    write_scores(root, row_group())
    capsys.readouterr()
    held = run_status(StatusSettings(str(root)))
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith(cache.name))
    assert "finished 2" in line
    assert "4 shards, 38 rows, 2 rejected (no-image 2)" in line
    (line,) = (line for line in lines if line.startswith(half.name))
    assert "unfinished, touched 2" in line
    assert "2 of 5 shards" in line
    assert any(line.startswith("scores  manifest 1 of 1, 1 live row group") for line in lines)
    assert lines[-1].startswith("together 2 artifacts (1 finished, 1 unfinished)")
    assert (held.rows, held.rejected) == (57, 3)


def test_nothing_is_written(tmp_path: Path) -> None:
    root = new_storage(tmp_path)
    sharded(root)
    before = tree(tmp_path)
    run_status(StatusSettings(str(tmp_path)))
    assert tree(tmp_path) == before


def test_an_empty_storage(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    told = document(root, capsys)
    assert (told["artifacts"], told["scores"], told["bytes"]) == ([], None, 0)


def test_one_kind_or_artifact(root: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    cache, sae = sharded(root), artifact(root, "saes")
    write_scores(root, row_group())
    of_kind = document(root, capsys, kind="saes")
    assert [one["name"] for one in of_kind["artifacts"]] == [sae.name]
    assert of_kind["scores"] is None
    one = document(root, capsys, artifact=cache.name)
    assert [one["name"] for one in one["artifacts"]] == [cache.name]
    scores = document(root, capsys, kind="scores")
    assert (scores["artifacts"], scores["scores"]["groups"]) == ([], 1)


def test_what_is_not_there_is_a_setting(root: Directory) -> None:
    with pytest.raises(SettingsError, match="artifact: 'saes/x'"):
        run_status(StatusSettings(str(root), artifact="saes/x"))
    with pytest.raises(SettingsError, match="kind: 'sae'"):
        run_status(StatusSettings(str(root), kind="sae"))


def test_no_storage(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no storage"):
        run_status(StatusSettings(str(tmp_path)))


def test_lost_files_are_told_with_their_shards(root: Directory) -> None:
    made = sharded(root, shards=3)
    names = [entry.key for entry in made.directory.entries() if entry.key.startswith("data/")]
    made.directory.delete(names[0])
    made.directory.put_bytes(names[1], b"")
    (found,) = artifacts(root)
    status = artifact_status(found)
    assert status.state == "damaged"
    assert status.problems == [
        f"shard-00000: {names[0]} is missing",
        f"shard-00001: {names[1]} has 0 bytes, more or fewer than its mark says",
    ]


def test_shards_that_lost_files_do_not_count(root: Directory) -> None:
    made = sharded(root, shards=4, done=3)
    made.directory.delete("shard-00001.samples.parquet")
    (found,) = artifacts(root)
    status = artifact_status(found)
    assert (status.state, status.shards, status.rows) == ("unfinished", 2, 20)
    assert (status.rejected, status.reasons) == (0, {})
    assert status.problems == ["shard-00001: shard-00001.samples.parquet is missing"]


def test_many_problems_are_counted(root: Directory) -> None:
    made = sharded(root, shards=SHOWN_PROBLEMS + 5)
    for shard in range(SHOWN_PROBLEMS + 5):
        made.directory.delete(f"shard-{shard:05d}.samples.parquet")
    (found,) = artifacts(root)
    problems = artifact_status(found).problems
    assert len(problems) == SHOWN_PROBLEMS + 1
    assert problems[-1] == "and 5 more of the kind"


def test_a_lost_mark_of_a_finished_artifact(root: Directory) -> None:
    made = sharded(root)
    made.directory.delete("shard-00001.done.json")
    (found,) = artifacts(root)
    assert artifact_status(found).problems == ["1 mark of 3 shards are missing"]


def test_a_damaged_mark_and_table(root: Directory) -> None:
    half = sharded(root, done=2)
    half.directory.put_bytes("shard-00000.done.json", b"{")
    whole = sharded(root, number=1)
    (table,) = (e.key for e in whole.directory.entries() if e.key.startswith("shards-"))
    whole.directory.put_bytes(table, b"x" * (whole.directory.size(table) or 0))
    by_name = {found.name: artifact_status(found) for found in artifacts(root)}
    assert "damaged" in by_name[half.name].problems[0]
    assert by_name[half.name].shards == 1
    assert "damaged" in by_name[whole.name].problems[0]


def test_an_unreadable_artifact_is_a_line_and_the_job_goes_on(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = artifact(root, "saes", number=1), artifact(root, "saes", number=2)
    broken.directory.put_bytes(METADATA_FILE, b"no json")
    told = {one["name"]: one for one in document(root, capsys)["artifacts"]}
    assert told[broken.name]["state"] == "unreadable"
    assert METADATA_FILE in told[broken.name]["problems"][0]
    assert told[whole.name]["state"] == "finished"


def test_checkpoints_and_what_is_left(root: Directory) -> None:
    names = ("checkpoints/step-0000000020/rank-0", "checkpoints/step-0000000100/rank-0")
    artifact(root, "saes", files=names, finished=False)
    done = artifact(root, "saes", number=1)
    done.directory.put_bytes("work/old", b"123")
    done.directory.put_bytes(".tmp-00000000-1-1-0000000000000000", b"12")
    done.directory.put_bytes("attempts/shard-00000.read-1", b"1")
    by_state = {one.state: one for one in map(artifact_status, artifacts(root))}
    assert by_state["unfinished"].checkpoints == ["step-0000000020", "step-0000000100"]
    assert by_state["unfinished"].work[0] == 2
    assert by_state["finished"].left == {
        "temporary": (1, 2),
        "attempt mark": (1, 1),
        "unlisted file": (1, 3),
    }


def test_score_files_that_the_latest_manifest_does_not_list(root: Directory) -> None:
    table = write_scores(root, row_group())
    write_scores(root, row_group(10), publish=False)
    table.directory.put_bytes("stray", b"12345")
    status = score_status(root)
    assert status is not None
    assert status.unlisted[0] == 2
    assert status.left == {"file that is none of scores'": (1, 5)}
    (live,) = table.live()
    table.directory.delete(live.path)
    status = score_status(root)
    assert status is not None
    assert "1 live data files are missing" in status.problems[0]


def test_a_damaged_manifest_is_a_sentence(root: Directory) -> None:
    table = write_scores(root, row_group())
    table.directory.put_bytes("manifests/00000002.parquet", b"x")
    status = score_status(root)
    assert status is not None
    assert "damaged" in status.problems[0]
