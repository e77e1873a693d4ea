from __future__ import annotations

from raysae.storage import Directory
from raysae.upkeep.artifact_status import SHOWN_PROBLEMS, artifact_status
from raysae.upkeep.inventory import artifacts
from tests.upkeep.builders import artifact, sharded
from tests.upkeep.helpers import data_file


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
    assert artifact_status(found).problems == ["1 mark of 3 shards is missing"]
    assert artifact_status(found).shards == 2


def test_shards_of_a_finished_artifact_that_lost_files_do_not_count(root: Directory) -> None:
    made = sharded(root, shards=4)
    for name in (
        "shard-00001.samples.parquet",
        data_file(made.directory, 1),
        data_file(made.directory, 2),
    ):
        made.directory.delete(name)
    (found,) = artifacts(root)
    status = artifact_status(found)
    assert (status.state, status.shards, status.planned) == ("damaged", 2, 4)


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
