from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysae.errors import DataError, SettingsError
from raysae.storage import MARKER, Directory
from raysae.upkeep.collect import CollectSettings, run_collect
from tests.upkeep.builders import (
    HOUR,
    artifact,
    new_storage,
    row_group,
    sharded,
    write_scores,
)
from tests.upkeep.helpers import files, garbage


def test_a_fresh_storage_has_no_garbage(root: Directory) -> None:
    sharded(root, done=1)
    artifact(root, "weights")
    write_scores(root, row_group(), publish=False)
    before = files(root)
    assert garbage(root, delete=True) == {}
    assert files(root) == before


def test_no_storage_and_a_newer_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no storage"):
        run_collect(CollectSettings(str(tmp_path), delete=True))
    new_storage(tmp_path).put_json(MARKER, {"format_version": 99})
    with pytest.raises(DataError, match="format 99"):
        run_collect(CollectSettings(str(tmp_path), delete=True))


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
