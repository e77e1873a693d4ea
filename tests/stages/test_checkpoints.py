from __future__ import annotations

from pathlib import Path

import pytest

from raysae.stages._checkpoints import Checkpoints
from raysae.storage import Directory
from tests.storages import at


def rank_files(directory: Path, rank: int) -> Path:
    (directory / "below").mkdir(parents=True)
    (directory / f"rank-{rank}").write_text(str(rank))
    (directory / "below" / f"rank-{rank}").write_text(str(rank))
    return directory


def publish(directory: Directory, step: int, content: str = "x") -> None:
    token = f"{step}{content}"
    (directory / token).put_bytes("state", content.encode())
    Checkpoints(directory).publish(token, step)


def names(directory: Directory) -> list[str]:
    return [entry.key for entry in directory.entries()]


def state(directory: Directory) -> str:
    checkpoints = Checkpoints(directory)
    name = checkpoints.newest()
    assert name is not None
    with checkpoints.fetched(name) as files:
        return (files / "state").read_text()


def test_the_files_of_all_ranks_come_together(tmp_path: Path) -> None:
    checkpoints = Checkpoints(at(tmp_path / "checkpoints"))
    for rank in (1, 0):
        scratch = rank_files(tmp_path / f"scratch-{rank}", rank)
        checkpoints.put("token", scratch)
        assert not [path for path in scratch.rglob("*") if path.is_file()]
        assert checkpoints.newest() is None
    checkpoints.publish("token", 7)
    assert checkpoints.newest() == "step-0000000007.json"
    with checkpoints.fetched("step-0000000007.json") as files:
        found = sorted(str(p.relative_to(files)) for p in files.rglob("*") if p.is_file())
        assert found == ["below/rank-0", "below/rank-1", "rank-0", "rank-1"]
        assert (files / "below" / "rank-1").read_text() == "1"


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    directory = at(tmp_path)
    assert Checkpoints(directory).newest() is None
    for step in (2, 4, 10, 100):
        publish(directory, step)
        assert Checkpoints(directory).newest() == f"step-{step:010d}.json"
    assert names(directory) == [
        "100x/state",
        "10x/state",
        "step-0000000010.json",
        "step-0000000100.json",
    ]


def test_two_runs_at_once_keep_what_is_furthest(tmp_path: Path) -> None:
    directory = at(tmp_path)
    publish(directory, 4, "first")
    publish(directory, 4, "second")
    assert state(directory) == "first"
    assert names(directory) == ["4first/state", "step-0000000004.json"]
    publish(directory, 6)
    publish(directory, 2)
    assert Checkpoints(directory).newest() == "step-0000000006.json"
    assert "step-0000000002.json" not in names(directory)


def test_broken_ones_take_no_whole_ones_place(tmp_path: Path) -> None:
    """A training began anew, since all that it had saved was lost."""
    directory = at(tmp_path)
    for step in (40, 50):
        publish(directory, step)
        directory.delete(f"{step}x/state")
    publish(directory, 5)
    assert Checkpoints(directory).newest() == "step-0000000005.json"
    assert names(directory) == ["5x/state", "step-0000000005.json"]


def test_a_broken_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    directory = at(tmp_path)
    publish(directory, 4)
    publish(directory, 6, "first")
    directory.delete("6first/state")
    publish(directory, 6, "again")
    assert state(directory) == "again"
    assert names(directory) == [
        "4x/state",
        "6again/state",
        "step-0000000004.json",
        "step-0000000006.json",
    ]


def test_a_run_killed_before_the_name_is_given_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    directory = at(tmp_path)
    publish(directory, 2)
    monkeypatch.setattr(Directory, "create", stop)
    with pytest.raises(KeyboardInterrupt):
        publish(directory, 4)
    assert Checkpoints(directory).newest() == "step-0000000002.json"


@pytest.mark.parametrize("damage", ["gone", "cut", "no record", "a list"])
def test_a_checkpoint_that_lost_its_files_is_passed_over(tmp_path: Path, damage: str) -> None:
    directory = at(tmp_path)
    publish(directory, 2, "whole")
    publish(directory, 4, "damaged")
    if damage == "gone":
        directory.delete("4damaged/state")
    elif damage == "cut":
        directory.put_bytes("4damaged/state", b"dam")
    else:
        stored = b"{" if damage == "no record" else b'{"token": "4damaged", "files": ["state"]}'
        directory.put_bytes("step-0000000004.json", stored)
    assert state(directory) == "whole"
    publish(directory, 6, "next")
    assert state(directory) == "next"


def test_a_dropped_checkpoint_stays_readable_for_who_has_opened_it(tmp_path: Path) -> None:
    directory = at(tmp_path)
    publish(directory, 2)
    with Checkpoints(directory).fetched("step-0000000002.json") as files:
        for step in (4, 6, 8):
            publish(directory, step)
        assert (files / "state").read_text() == "x"
