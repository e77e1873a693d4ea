from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysae.artifacts import METADATA_FILE
from raysae.errors import DataError, SettingsError
from raysae.storage import Directory
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


def test_an_unreadable_artifact_is_a_line_and_the_job_goes_on(
    root: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = artifact(root, "saes", number=1), artifact(root, "saes", number=2)
    broken.directory.put_bytes(METADATA_FILE, b"no json")
    told = {one["name"]: one for one in document(root, capsys)["artifacts"]}
    assert told[broken.name]["state"] == "unreadable"
    assert METADATA_FILE in told[broken.name]["problems"][0]
    assert told[whole.name]["state"] == "finished"
