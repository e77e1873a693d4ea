from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from raysae.artifacts import METADATA_FILE, SPEC_FILE, ShardPlan
from raysae.errors import DataError, StorageError
from raysae.storage import Directory
from raysae.upkeep.collect import CollectSettings, run_collect
from raysae.upkeep.deletion import Deletion
from tests.upkeep.builders import (
    INPUTS,
    WEEK,
    age,
    artifact,
    new_storage,
    row_group,
    sharded,
    write_scores,
)
from tests.upkeep.helpers import during, garbage


def test_what_cannot_be_deleted_is_said_and_the_rest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = new_storage(tmp_path)
    denied, other = sharded(root, number=1), sharded(root, number=2)
    age(tmp_path, 2 * WEEK)
    unlink = os.unlink

    def refuse(path: Any, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None and denied.id in str(Path(f"/proc/self/fd/{dir_fd}").readlink()):
            raise PermissionError(13, "Permission denied", path)
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StorageError, match=f"1 thing could not be deleted, {denied.name}"):
        run_collect(CollectSettings(str(tmp_path), delete=True))
    assert denied.is_finished()  # whole, because its metadata could not go
    assert not (tmp_path / other.name).exists()
    assert f"{denied.name} could not be deleted" in capsys.readouterr().out


@pytest.mark.parametrize("steps", range(2, 15, 2))  # the first one takes the clock's probe away
def test_a_kill_anywhere_leaves_nothing_that_looks_finished_and_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    root = new_storage(tmp_path)
    made = sharded(root, shards=3)
    table = write_scores(root, row_group(), extra=INPUTS)
    for start in (0, 10, 20):
        write_scores(root, row_group(start), extra={**INPUTS, "start": start})
    age(tmp_path, 2 * WEEK)
    unlink, left = os.unlink, steps

    def killed(path: Any, *, dir_fd: int | None = None) -> None:
        nonlocal left
        if dir_fd is not None:
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        unlink(path, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", killed)
        try:
            run_collect(CollectSettings(str(tmp_path), delete=True, keep_manifests=1))
        except KeyboardInterrupt:
            pass
        else:
            assert left >= 0
    assert not made.is_finished()
    for state in made.states(ShardPlan([30], 10)):
        assert state.mark is None or not state.problem
        assert not state.problem
    for number in table.manifests.numbers():
        assert all(table.directory.exists(name) for name in table.files_of(number))
    run_collect(CollectSettings(str(tmp_path), delete=True, keep_manifests=1))
    assert not (tmp_path / made.name).exists()


def test_a_run_that_begins_at_this_moment_gets_its_cache_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = new_storage(tmp_path)
    cache, other = sharded(root, number=1), sharded(root, number=2)
    age(tmp_path, 2 * WEEK)
    during(
        monkeypatch,
        lambda: artifact(root, "saes", {"activations": cache.id}, finished=False),
        lambda names: names == [f"{cache.name}/{METADATA_FILE}"],
    )
    result = run_collect(CollectSettings(str(root), delete=True))
    assert cache.is_finished()
    assert [item.name for item in result.deleted] == [other.name]
    assert f"{cache.name} stays: a run came to need it" in capsys.readouterr().out


def test_a_run_that_goes_on_at_this_moment_keeps_its_work_and_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_storage(tmp_path)
    cache = sharded(root)
    sae = artifact(root, "saes", {"activations": cache.id}, finished=False)
    age(tmp_path, 2 * WEEK)
    assert garbage(root) == {cache.name: "unreferenced", sae.name: "abandoned"}
    during(monkeypatch, sae.begin, lambda names: names[0].endswith(METADATA_FILE))
    assert run_collect(CollectSettings(str(root), delete=True)).deleted == ()
    assert cache.is_finished()
    assert sae.directory.exists("data.bin")


def test_a_run_that_begins_again_while_its_old_work_goes_keeps_its_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_storage(tmp_path)
    half = sharded(root, done=2)
    age(tmp_path, 2 * WEEK)
    during(monkeypatch, lambda: half.begin(3), lambda names: names[0].endswith(".done.json"))
    assert run_collect(CollectSettings(str(root), delete=True)).deleted == ()
    assert [entry.key for entry in half.directory.entries()] == [SPEC_FILE]


def test_what_was_taken_is_put_back_when_looking_for_users_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_storage(tmp_path)
    caches = [sharded(root, number=number) for number in range(3)]
    age(tmp_path, 2 * WEEK)
    during(
        monkeypatch,
        lambda: root.put_bytes("uses/odd.json", b"{}"),
        lambda names: names == [f"{caches[1].name}/{METADATA_FILE}"],
    )
    with pytest.raises(DataError, match="does not tell what a run reads"):
        run_collect(CollectSettings(str(root), delete=True))
    assert all(cache.is_finished() for cache in caches)


def test_an_interrupted_deletion_leaves_finished_what_it_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_storage(tmp_path)
    caches = sorted((sharded(root, number=number) for number in range(3)), key=lambda one: one.id)
    age(tmp_path, 2 * WEEK)

    def interrupt() -> None:
        raise KeyboardInterrupt

    first_mark = f"{caches[1].name}/shard-00000.done.json"
    during(monkeypatch, interrupt, lambda names: first_mark in names)
    with pytest.raises(KeyboardInterrupt):
        run_collect(CollectSettings(str(root), delete=True))
    assert not caches[0].directory.exists(SPEC_FILE)
    assert [cache.is_finished() for cache in caches[1:]] == [False, True]


def test_one_that_cannot_be_put_back_is_said_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = new_storage(tmp_path)
    lost, *others = [sharded(root, number=number) for number in range(3)]
    age(tmp_path, 2 * WEEK)
    create = Directory.create

    def denied(self: Directory, name: str, data: bytes) -> bool:
        if self.path == lost.name:
            raise StorageError("storage: denied.")
        return create(self, name, data)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Directory, "create", denied)
    monkeypatch.setattr(Deletion, "_doomed_now", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_collect(CollectSettings(str(root), delete=True))
    assert all(cache.is_finished() for cache in others)
    assert (
        f"{lost.name} could not be deleted: it stays, but its {METADATA_FILE} could not be put back"
    ) in capsys.readouterr().out


def test_metadata_that_a_run_wrote_meanwhile_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_storage(tmp_path)
    cache = sharded(root)
    age(tmp_path, 2 * WEEK)

    def make_again() -> None:
        artifact(root, "saes", {"activations": cache.id}, finished=False)
        cache.finish({"made": "again"}, shards=ShardPlan([30], 10))

    during(monkeypatch, make_again, lambda names: names == [f"{cache.name}/{METADATA_FILE}"])
    run_collect(CollectSettings(str(root), delete=True))
    assert cache.is_finished()
    assert cache.metadata()["made"] == "again"


@pytest.mark.parametrize("steps", range(2, 11))
def test_a_kill_anywhere_leaves_no_record_of_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    root = new_storage(tmp_path)
    records = {
        "work/checkpoints/step-0000000005.json": "work/checkpoints/0a/state.json",
        "work/outcome.json": "work/checkpoints/0a/state.pt",
        "work/preferences.json": "work/preferences.arrow",
    }
    sae = artifact(root, "saes", files=(*records, *records.values()), finished=False)
    age(tmp_path, 2 * WEEK)
    unlink, left = os.unlink, steps

    def killed(path: Any, *, dir_fd: int | None = None) -> None:
        nonlocal left
        left -= dir_fd is not None
        if left < 0:
            raise KeyboardInterrupt
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", killed)
    with suppress(KeyboardInterrupt):
        run_collect(CollectSettings(str(tmp_path), delete=True))
    for record, named in records.items():
        assert sae.directory.exists(named) or not sae.directory.exists(record)
    assert sae.directory.exists(SPEC_FILE) == (steps < 8)


def test_a_use_that_comes_back_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run whose storage was away for so long that its use became old."""
    root = new_storage(tmp_path)
    cache = sharded(root)
    root.put_json("uses/running.json", {"artifacts": [cache.name]})
    root.put_json("uses/killed.json", {"artifacts": []})
    age(tmp_path, 2 * WEEK)
    during(
        monkeypatch,
        lambda: root.put_json("uses/running.json", {"artifacts": [cache.name]}),
        lambda names: names == [f"{cache.name}/{METADATA_FILE}"],
    )
    assert garbage(root, delete=True) == {cache.name: "unreferenced", "uses": "left"}
    assert cache.is_finished()
    assert [entry.key for entry in (root / "uses").entries()] == ["running.json"]
    assert "uses stays: a run came to need it just now" in capsys.readouterr().out
