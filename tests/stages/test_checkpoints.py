from __future__ import annotations

from pathlib import Path

import pytest

from raysae.stages import _checkpoints
from raysae.stages._checkpoints import move_files, newest_checkpoint, publish_checkpoint


def rank_files(directory: Path, rank: int) -> Path:
    (directory / "below").mkdir(parents=True)
    (directory / f"rank-{rank}").write_text(str(rank))
    (directory / "below" / f"rank-{rank}").write_text(str(rank))
    return directory


def publish(checkpoints: Path, step: int, content: str = "x") -> None:
    incoming = checkpoints / f".tmp-{step}"
    incoming.mkdir(parents=True)
    (incoming / "state").write_text(content)
    publish_checkpoint(incoming, checkpoints, step)


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_the_files_of_all_ranks_come_together(tmp_path: Path) -> None:
    incoming = tmp_path / "checkpoints" / ".tmp-1"
    for rank in (1, 0):
        move_files(rank_files(tmp_path / f"scratch-{rank}", rank), incoming)
        assert newest_checkpoint(tmp_path / "checkpoints") is None
    publish_checkpoint(incoming, tmp_path / "checkpoints", 7)
    assert newest_checkpoint(tmp_path / "checkpoints") == "step-0000000007"
    found = names(tmp_path / "checkpoints" / "step-0000000007")
    assert found == ["below", "below/rank-0", "below/rank-1", "rank-0", "rank-1"]
    assert names(tmp_path) == ["checkpoints", "checkpoints/step-0000000007"] + [
        f"checkpoints/step-0000000007/{name}" for name in found
    ]


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for step in (2, 4, 10, 100):
        publish(tmp_path, step)
        assert newest_checkpoint(tmp_path) == f"step-{step:010d}"
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step-0000000010",
        "step-0000000100",
    ]


def test_two_runs_at_once_keep_what_is_furthest(tmp_path: Path) -> None:
    publish(tmp_path, 4, "first")
    publish(tmp_path, 4, "second")
    assert (tmp_path / "step-0000000004" / "state").read_text() == "first"
    publish(tmp_path, 6)
    publish(tmp_path, 2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step-0000000004",
        "step-0000000006",
    ]


def test_a_run_killed_before_the_name_is_given_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    publish(tmp_path, 2)
    monkeypatch.setattr(_checkpoints.Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, 4)
    assert newest_checkpoint(tmp_path) == "step-0000000002"
