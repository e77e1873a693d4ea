from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raysae.artifacts import MANIFEST_SCHEMA, METADATA_FILE, SPEC_FILE, ShardPlan
from raysae.artifacts.uses import using
from raysae.errors import DataError, SettingsError, StorageError
from raysae.storage import MARKER, TEMPORARY_PREFIX, Directory
from raysae.storage.local import LocalBackend
from raysae.storage.posix import Posix
from raysae.storage.temporaries import temporary_name
from raysae.upkeep import collect
from raysae.upkeep.clock import StorageClock, storage_clock
from raysae.upkeep.collect import CollectSettings, run_collect
from tests.upkeep.builders import (
    HOUR,
    WEEK,
    age,
    artifact,
    new_storage,
    row_group,
    sharded,
    tree,
    write_scores,
)

INPUTS = {"inputs": {"sae": "s", "weights": "w"}}
"""What the mark of a row group tells that it was made from."""


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the storage's clock be so many seconds ahead from now on: in a bucket, too."""

    def ahead(seconds: float) -> None:
        def clock(root: Directory, limit: float) -> StorageClock:
            found = storage_clock(root, limit)
            return replace(found, looked=found.looked + seconds)

        monkeypatch.setattr(collect, "storage_clock", clock)

    return ahead


def garbage(root: Directory, **settings: Any) -> dict[str, str]:
    """What can go, and why: names of artifacts and directories by reason."""
    items = run_collect(CollectSettings(str(root), **settings)).items
    return {item.name: item.reason for item in items}


def files(root: Directory) -> set[str]:
    return {entry.key for entry in root.entries()}


def test_a_fresh_storage_has_no_garbage(root: Directory) -> None:
    sharded(root, done=1)
    artifact(root, "weights")
    write_scores(root, row_group(), publish=False)
    before = files(root)
    assert garbage(root, delete=True) == {}
    assert files(root) == before


def test_what_nobody_needs_goes_and_the_rest_stays(
    root: Directory, later: Callable[[float], None]
) -> None:
    used, unused = sharded(root, number=1), sharded(root, number=2)
    sae = artifact(root, "saes", {"activations": used.id})
    half = sharded(root, number=3, done=2)
    training = artifact(root, "saes", files=("checkpoints/step-1",), finished=False)
    later(2 * WEEK)
    before = files(root)
    expected = {
        unused.name: "unreferenced",
        half.name: "abandoned",
        training.name: "abandoned",
    }
    assert garbage(root) == expected
    assert files(root) == before  # a dry run
    assert garbage(root, delete=True) == expected
    kept = {MARKER, *(name for name in before if name.startswith((used.name, sae.name)))}
    assert files(root) == kept
    assert used.is_finished()
    assert sae.is_finished()
    assert garbage(root, used_caches=True) == {used.name: "used-up"}


def test_the_inputs_of_unfinished_young_work_stay(
    tmp_path: Path,
) -> None:
    """The SAE that is being trained from an old cache that nobody else needs."""
    root = new_storage(tmp_path)
    cache = sharded(root)
    age(tmp_path, 2 * WEEK)
    artifact(root, "saes", {"activations": cache.id}, finished=False)
    assert garbage(root, delete=True, used_caches=True) == {}
    assert cache.is_finished()


def test_a_run_that_goes_on_makes_old_work_young(tmp_path: Path) -> None:
    root = new_storage(tmp_path)
    half = sharded(root, done=2)
    age(tmp_path, 2 * WEEK)
    assert garbage(root) == {half.name: "abandoned"}
    half.begin(3)
    assert garbage(root, delete=True) == {}


def test_what_a_run_says_it_reads_stays(root: Directory, later: Callable[[float], None]) -> None:
    weights = sharded(root, "weights")
    write_scores(root, row_group(), extra=INPUTS)
    later(2 * WEEK)
    with using(root, [weights.name]):
        later(100 * HOUR)
        assert garbage(root) == {}
    later(2 * WEEK)
    assert garbage(root) == {weights.name: "unreferenced"}


def test_uses_of_killed_runs_do_not_count_for_ever(tmp_path: Path) -> None:
    root = new_storage(tmp_path)
    weights = sharded(root, "weights")
    with using(root, [weights.name]):
        age(tmp_path, 2 * WEEK)
        assert garbage(root, delete=True) == {weights.name: "unreferenced", "uses": "left"}
    assert files(root) == {MARKER}


def test_weights_that_live_scores_were_made_with_stay(
    root: Directory, later: Callable[[float], None]
) -> None:
    scored, other = sharded(root, "weights", number=1), sharded(root, "weights", number=2)
    write_scores(root, row_group(), extra={"inputs": {"weights": scored.id, "sae": "x"}})
    later(2 * WEEK)
    assert garbage(root) == {other.name: "unreferenced"}


def test_where_scores_do_not_tell_all_but_caches_stay(
    root: Directory, later: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = sharded(root)
    sharded(root, "weights")
    write_scores(root, row_group())
    later(2 * WEEK)
    assert garbage(root) == {cache.name: "unreferenced"}
    assert "the marks do not tell what was scored with" in capsys.readouterr().out
    assert garbage(root, keep_kinds=("activations",)) == {}


def test_an_artifact_that_cannot_be_read_may_need_anything(
    root: Directory, later: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sharded(root)
    broken = artifact(root, "saes")
    for name in (SPEC_FILE, METADATA_FILE):
        broken.directory.put_bytes(name, b"x")
    half = sharded(root, done=1, number=1)
    later(2 * WEEK)
    assert garbage(root) == {half.name: "abandoned"}
    assert f"{broken.name} cannot be read, so nothing" in capsys.readouterr().out


def test_left_overs_go_when_they_are_old(root: Directory, later: Callable[[float], None]) -> None:
    made = sharded(root, "subsets")
    half = artifact(root, "saes", files=("checkpoints/step-1",), finished=False)
    dead = f"{TEMPORARY_PREFIX}{temporary_name()[5:13]}-4194304-1-{'0' * 16}"
    left = {
        f"{made.name}/data/unlisted.arrow",
        f"{made.name}/{TEMPORARY_PREFIX}of-somebody/file",
        f"{made.name}/attempts/shard-00000.read-1",
        f"{half.name}/{temporary_name()}",
        f"{half.name}/attempts/shard-00000.read-1",
        f".probes/{TEMPORARY_PREFIX}probe",
        f"scores/{temporary_name()}",
        "scores/attempts/x.read-1",
        "uses/of-a-killed-run.json",
    }
    before = files(root)
    for name in left:
        root.put_bytes(name, b"{}")
    root.put_bytes(f"{made.name}/data/{dead}", b"12")
    write_scores(root, row_group(), extra=INPUTS)
    before |= {name for name in files(root) if name.startswith("scores/")} - left
    assert garbage(root, delete=True) == {made.name: "left"}
    assert files(root) == before | left
    half.begin()
    later(2 * WEEK)
    names = {made.name, ".probes", "scores", "uses"}
    gone = garbage(root, delete=True)
    assert gone.keys() == {*names, half.name}
    assert files(root) == {name for name in before if not name.startswith(half.name)}


def test_an_unlisted_file_of_unfinished_work_stays_as_long_as_the_work(tmp_path: Path) -> None:
    root = new_storage(tmp_path)
    half = sharded(root, done=1)
    half.directory.put_bytes("data/of-a-killed-attempt.arrow", b"x")
    age(tmp_path, 2 * WEEK)
    half.begin(3)
    assert garbage(root, delete=True) == {}


# -- clocks


@pytest.mark.parametrize("wrong", [-3 * WEEK, -HOUR, HOUR, 3 * WEEK])
def test_this_machines_clock_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    root = new_storage(tmp_path)
    young, old = sharded(root, done=1, number=1), sharded(root, done=1, number=2)
    age(tmp_path / old.name, WEEK + 60)
    age(tmp_path / young.name, WEEK - 600)
    right = time.time()
    monkeypatch.setattr(time, "time", lambda: right + wrong)
    assert garbage(root) == {old.name: "abandoned"}


@pytest.mark.parametrize("wrong", [-3 * WEEK, 3 * WEEK])
def test_the_storages_clock_may_be_any(tmp_path: Path, wrong: float) -> None:
    """A file server three weeks ahead or behind: all it stamps is, what is written now too."""

    class Server(Posix):
        def write(self, path: Path, data: bytes) -> None:
            super().write(path, data)
            then = path.stat().st_mtime + wrong
            os.utime(path, (then, then))

    new_storage(tmp_path)
    root = Directory(LocalBackend(tmp_path, Server()))
    young, old = sharded(root, done=1, number=1), sharded(root, done=1, number=2)
    for path in (tmp_path / "activations").rglob("*.arrow"):
        os.utime(path, (path.stat().st_mtime + wrong,) * 2)
    age(tmp_path / old.name, WEEK + 60)
    clock = storage_clock(root, WEEK)
    keep = collect.Keep(3, ("saes",), used_caches=False)
    plan = collect.plan_garbage(root, keep, clock)
    assert [item.name for item in plan.items] == [old.name]
    assert young.directory.exists(SPEC_FILE)


def test_a_storage_that_tells_no_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = new_storage(tmp_path)
    entries = Directory.entries
    monkeypatch.setattr(
        Directory,
        "entries",
        lambda self: (e._replace(modified=float("nan")) for e in entries(self)),
    )
    with pytest.raises(StorageError, match="does not tell when"):
        garbage(root)
    assert not StorageClock(time.time(), time.monotonic(), WEEK).is_old(float("nan"))


# -- never outside


def test_symbolic_links_are_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kind, an artifact, a directory in one, a file and the score table that lie elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    root = new_storage(tmp_path / "s")
    linked_kind = sharded(root, "weights", done=1)
    linked = sharded(root, done=1, number=1)
    gone = sharded(root, done=1, number=2)
    write_scores(root, row_group(), publish=False)
    for name in ("weights", linked.name, f"{gone.name}/data", "scores"):
        target = elsewhere / name.replace("/", "-")
        target.parent.mkdir(exist_ok=True)
        (tmp_path / "s" / name).rename(target)
        (tmp_path / "s" / name).symlink_to(target)
    (elsewhere / "precious").write_bytes(b"precious")
    (tmp_path / "s" / gone.name / "file").symlink_to(elsewhere / "precious")
    age(tmp_path, 2 * WEEK)
    before = tree(elsewhere)
    assert garbage(root, delete=True) == {gone.name: "abandoned"}
    assert tree(elsewhere) == before
    said = capsys.readouterr().out
    for name in (linked_kind.name, linked.name, "scores"):
        assert f"{name} lies behind a symbolic link; left alone" in said


def test_what_is_not_raysaes_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = new_storage(tmp_path)
    names = (
        "notes/ü b/file",
        "saes/my best SAE/weights",
        "saes/readme",
        "file",
        "inventions/0/spec.json",
        "scores/stray",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    later = artifact(root, "discoveries", finished=False)
    age(tmp_path, 2 * WEEK)
    before = tree(tmp_path)
    assert garbage(root, delete=True) == {}
    assert tree(tmp_path) == before
    said = capsys.readouterr().out
    for name in ("notes", "saes/my best SAE", "scores/stray", "inventions"):
        assert f"note: {name} is no" in said
    assert later.directory.exists(SPEC_FILE)


def test_no_storage_and_a_newer_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no storage"):
        run_collect(CollectSettings(str(tmp_path), delete=True))
    new_storage(tmp_path).put_json(MARKER, {"format_version": 99})
    with pytest.raises(DataError, match="format 99"):
        run_collect(CollectSettings(str(tmp_path), delete=True))


# -- denied, killed, and at the same moment


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


@pytest.mark.parametrize("steps", range(1, 14, 2))
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


def during(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], when: Callable[[list[str]], bool]
) -> None:
    """Do something once, right after files that fit were removed."""
    remove, done = Directory.remove, False

    def removed(self: Directory, names: list[str]) -> None:
        nonlocal done
        remove(self, names)
        if not done and when([self.key(name) for name in names]):
            done = True
            act()

    monkeypatch.setattr(Directory, "remove", removed)


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


# -- the score table


def test_old_manifests_and_what_they_alone_list(
    root: Directory, later: Callable[[float], None]
) -> None:
    for number in range(5):
        table = write_scores(root, row_group(lineage=str(number)), extra=INPUTS)
    assert table.manifests.numbers() == [1, 2, 3, 4, 5]
    assert garbage(root, delete=True, keep_manifests=1) == {}
    later(2 * WEEK)
    assert garbage(root, keep_manifests=5) == {}
    assert garbage(root, delete=True) == {"scores": "scores"}
    assert table.manifests.numbers() == [3, 4, 5]
    assert table.latest().rows == 5


def replaced_groups(root: Directory) -> Any:
    """A table whose first row group was replaced by another of its lineage."""
    first, second = row_group(0), replace(row_group(0), stop=20)
    write_scores(root, first, extra=INPUTS)
    return write_scores(root, second, extra=INPUTS), first, second


def test_replaced_row_groups_go_and_a_subset_keeps_its_own(
    root: Directory, later: Callable[[float], None]
) -> None:
    table, first, second = replaced_groups(root)
    subset = artifact(root, "subsets", {"scores": [first.key]})
    later(2 * WEEK)
    assert garbage(root, delete=True, keep_manifests=1) == {"scores": "scores"}  # the manifest
    assert table.mark(first) is not None
    for entry in subset.directory.entries():
        subset.directory.delete(entry.key)
    assert garbage(root, delete=True, keep_manifests=1) == {"scores": "scores"}
    assert table.mark(first) is None
    assert table.mark(second) is not None
    assert not [e for e in table.directory.entries() if first.key in e.key]
    assert table.are_live([second])


def test_row_groups_that_a_manifest_comes_to_list_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication that looked at the marks just before they were removed."""
    root = new_storage(tmp_path)
    table = write_scores(root, row_group(), extra=INPUTS, publish=False)
    live = next(iter(table._complete([row_group()])))
    age(tmp_path, 2 * WEEK)
    rows = pa.Table.from_pylist([live._asdict()], MANIFEST_SCHEMA)
    during(
        monkeypatch,
        lambda: table.manifests.append(rows),
        lambda names: names[0].endswith(".done.json"),
    )
    run_collect(CollectSettings(str(root), delete=True))
    assert table.are_live([row_group()])


def test_row_groups_stay_while_a_run_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = new_storage(tmp_path)
    table = write_scores(root, row_group(), extra=INPUTS, publish=False)
    age(tmp_path, 2 * WEEK)
    with using(root, ["scores"]):
        assert garbage(root, delete=True) == {}
    assert "scores is in use by a run; left alone" in capsys.readouterr().out
    scoring = using(root, ["scores"])
    during(monkeypatch, scoring.__enter__, lambda names: names[0].endswith(".done.json"))
    with pytest.raises(StorageError, match="a run has begun to score"):
        run_collect(CollectSettings(str(root), delete=True))
    assert table.mark(row_group()) is not None


def test_a_damaged_manifest_keeps_all_scores(tmp_path: Path) -> None:
    root = new_storage(tmp_path)
    table, _, _ = replaced_groups(root)
    table.directory.put_bytes("manifests/00000003.parquet", b"x")
    age(tmp_path, 2 * WEEK)
    before = tree(tmp_path)
    assert garbage(root, delete=True, keep_manifests=1) == {}
    assert tree(tmp_path) == before


# -- what is printed, and settings


def test_the_document(root: Directory, later: Callable[[float], None], capsys: Any) -> None:
    half = sharded(root, done=1)
    later(10 * 24 * HOUR)
    capsys.readouterr()
    run_collect(CollectSettings(str(root), json=True))
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    (item,) = told["garbage"]
    size = sum(entry.size for entry in half.directory.entries())
    assert item == {
        "name": half.name,
        "reason": "abandoned",
        "why": "unfinished, untouched for 10 days",
        "files": 4,
        "bytes": size,
        "deleted": False,
    }
    assert (told["bytes"], told["deleted_bytes"]) == (size, 0)
    run_collect(CollectSettings(str(root), json=True, delete=True))
    assert json.loads(capsys.readouterr().out)["deleted_bytes"] == size


def test_lines_for_a_person(root: Directory, later: Callable[[float], None], capsys: Any) -> None:
    half = sharded(root, done=1)
    later(10 * 24 * HOUR)
    run_collect(CollectSettings(str(root)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"collect: would delete {half.name}, 4 files, ")
    assert lines[1].endswith(": unfinished, untouched for 10 days")
    assert lines[-1].endswith("can go; nothing was deleted: run this again with --delete")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("older_than_hours", 0.5),
        ("older_than_hours", float("nan")),
        ("older_than_hours", float("inf")),
        ("keep_manifests", 0),
        ("keep_kinds", ("sae",)),
    ],
)
def test_impossible_settings(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name):
        CollectSettings(**{name: value})  # type: ignore[arg-type]
