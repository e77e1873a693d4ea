from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raysae.artifacts import MANIFEST_SCHEMA, ScoreTable, uses
from raysae.artifacts.uses import using
from raysae.errors import StorageError
from raysae.storage import Directory
from raysae.upkeep import deletion
from raysae.upkeep.collect import CollectSettings, run_collect
from tests.upkeep.builders import (
    HOUR,
    INPUTS,
    WEEK,
    age,
    new_storage,
    row_group,
    sharded,
    tree,
    write_scores,
)
from tests.upkeep.helpers import during, garbage


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


def test_old_manifests_and_what_they_alone_list(
    root: Directory, later: Callable[[float], None]
) -> None:
    for number in range(5):
        table = write_scores(root, row_group(lineage=str(number)), extra=INPUTS, series=str(number))
    assert table.manifests.numbers() == [1, 2, 3, 4, 5]
    assert garbage(root, delete=True, keep_manifests=1) == {}
    later(2 * WEEK)
    assert garbage(root, keep_manifests=5) == {}
    assert garbage(root, delete=True) == {"scores": "scores"}
    assert table.manifests.numbers() == [3, 4, 5]
    assert table.latest().rows == 5


def replaced_groups(root: Directory) -> Any:
    """A table whose series was published again with another row group."""
    first, second = row_group(0), replace(row_group(0), stop=20)
    write_scores(root, first, extra=INPUTS)
    return write_scores(root, second, extra=INPUTS), first, second


def test_replaced_row_groups_go_with_the_last_manifest_that_lists_them(
    root: Directory, later: Callable[[float], None]
) -> None:
    table, first, second = replaced_groups(root)
    later(2 * WEEK)
    assert garbage(root, delete=True, keep_manifests=2) == {}
    assert garbage(root, delete=True, keep_manifests=1) == {"scores": "scores"}
    assert table.mark(first) is None
    assert table.mark(second) is not None
    assert not [e for e in table.directory.entries() if first.key in e.key]
    assert table.are_live([second], "s")


def about_to_be_published(path: Path) -> tuple[Directory, ScoreTable, pa.Table]:
    """Old scores that no manifest lists, and the rows of one that would."""
    root = new_storage(path)
    table = write_scores(root, row_group(), extra=INPUTS, publish=False)
    live = next(iter(table._complete([row_group()])))
    age(path, 2 * WEEK)
    return root, table, pa.Table.from_pylist([live._asdict()], MANIFEST_SCHEMA)


def test_row_groups_that_a_manifest_comes_to_list_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication that looked at the marks just before they were removed."""
    root, table, rows = about_to_be_published(tmp_path)
    during(
        monkeypatch,
        lambda: table.manifests.publish(rows, "s"),
        lambda names: names[0].endswith(".done.json"),
    )
    run_collect(CollectSettings(str(root), delete=True))
    assert table.are_live([row_group()], "s")


def test_row_groups_of_a_run_that_publishes_and_ends_at_this_moment_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, table, rows = about_to_be_published(tmp_path)
    look = deletion.used_in

    def just_before(*arguments: Any) -> set[str]:
        if table.mark(row_group()) is None:
            table.manifests.publish(rows, "s")
        return look(*arguments)

    monkeypatch.setattr(deletion, "used_in", just_before)
    run_collect(CollectSettings(str(root), delete=True))
    assert table.are_live([row_group()], "s")


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


def test_old_files_stay_with_their_young_marks(tmp_path: Path) -> None:
    """As they are after marks that were taken away have been put back."""
    root = new_storage(tmp_path)
    groups = [row_group(start) for start in (0, 10)]
    table = write_scores(root, *groups, extra=INPUTS, publish=False)
    age(tmp_path, 2 * WEEK)
    name = f"{groups[0].shard}.done.json"
    table.directory.put_bytes(name, table.directory.read_bytes(name))
    assert garbage(root, delete=True) == {"scores": "scores"}
    assert table.missing(groups).groups == [groups[1]]
    age(tmp_path, 2 * WEEK)
    garbage(root, delete=True)
    assert not [e for e in table.directory.entries() if groups[0].key in e.key]


def test_a_long_run_keeps_the_row_groups_that_it_wrote_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores are published when all of them are there."""
    root = new_storage(tmp_path)
    groups = [row_group(start) for start in (0, 10, 20, 30)]
    monkeypatch.setattr(uses, "AGAIN_S", 0.01)
    with using(root, ["scores"]):
        table = write_scores(root, *groups[:3], extra=INPUTS, publish=False)
        age(tmp_path / "scores", 2 * HOUR)
        (use,) = (tmp_path / "uses").glob("*.json")
        os.utime(use, (5, 5))
        while use.stat().st_mtime == 5:
            time.sleep(0.01)
        write_scores(root, groups[3], extra=INPUTS, publish=False)
        assert garbage(root, delete=True, older_than_hours=1) == {}
    assert all(table.mark(group) for group in groups)


def test_marks_are_put_back_when_looking_for_users_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = new_storage(tmp_path)
    table = write_scores(root, row_group(), extra=INPUTS, publish=False)
    age(tmp_path, 2 * WEEK)
    during(
        monkeypatch,
        lambda: root.put_bytes("uses/odd.json", b"{}"),
        lambda names: names[0].endswith(".done.json"),
    )
    with pytest.raises(StorageError, match="does not tell what a run reads"):
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
