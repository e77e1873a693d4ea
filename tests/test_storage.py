from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysae import storage
from raysae.artifacts import as_number, read_json
from raysae.errors import SettingsError
from raysae.storage import (
    TEMPORARY_PREFIX,
    local_root,
    put_bytes,
    put_file,
    put_json,
    temporary_sibling,
    writable_root,
)


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


def test_put_replaces_the_whole_file(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "er" / "file"
    put_bytes(final, b"first, and longer")
    put_bytes(final, b"second")
    assert final.read_bytes() == b"second"
    assert [path.name for path in final.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("stopped_in", ["fsync", "replace"])
def test_a_writer_stopped_before_the_end_leaves_nothing_under_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_in: str
) -> None:
    owner = os if stopped_in == "fsync" else Path
    monkeypatch.setattr(owner, stopped_in, stop)
    with pytest.raises(KeyboardInterrupt):
        put_bytes(tmp_path / "file", b"half")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_stopped_before_the_end_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_bytes(tmp_path / "file", b"old")
    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        put_bytes(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_killed_writer_leaves_only_a_temporary_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL runs no `except`: what is left must not look like a file."""
    monkeypatch.setattr(Path, "replace", stop)
    temporary = temporary_sibling(tmp_path / "file.arrow")
    temporary.write_bytes(b"half")
    with pytest.raises(KeyboardInterrupt):
        put_file(temporary, tmp_path / "file.arrow")
    assert [path.name[: len(TEMPORARY_PREFIX)] for path in tmp_path.iterdir()] == [TEMPORARY_PREFIX]


def test_data_and_directory_reach_the_disk_before_and_after_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(storage.os, "fsync", lambda _: events.append("fsync"))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda a, b: (events.append("replace"), replace(a, b))[1])
    put_bytes(tmp_path / "file", b"x")
    assert events == ["fsync", "replace", "fsync"]


def test_temporary_names_are_never_used_twice(tmp_path: Path) -> None:
    names = {temporary_sibling(tmp_path / "a" / "file").name for _ in range(100)}
    assert len(names) == 100
    assert all(name.startswith(TEMPORARY_PREFIX) and name.endswith("-file") for name in names)


def test_json_does_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    put_json(tmp_path / "a", {"x": 1, "y": [1, 2]})
    put_json(tmp_path / "b", {"y": [1, 2], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "a").read_bytes()) == {"x": 1, "y": [1, 2]}


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    content = {"x": math.nan, "y": [math.inf, (-math.inf, 1.5)], "z": {"w": np.float64("nan")}}
    put_json(tmp_path / "a", content)
    text = (tmp_path / "a").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    read = read_json(tmp_path / "a")
    assert read == {"x": None, "y": [None, [None, 1.5]], "z": {"w": None}}
    assert math.isnan(as_number(read["x"]))
    assert as_number(1.5) == 1.5


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("file:///a%20b", "/a b"),
        ("file://localhost/a", "/a"),
        ("c", f"{Path.cwd()}/c"),
    ],
)
def test_local_root(uri: str, expected: str) -> None:
    assert local_root(uri) == Path(expected)


def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert local_root("~/storage") == Path("/home/someone/storage")


@pytest.mark.parametrize("uri", ["s3://bucket/x", "gs://bucket", "https://host/x"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^storage: .*scheme"):
        local_root(uri)


@pytest.mark.parametrize("uri", ["file://storage", "file://data/x", "file://", "file://localhost"])
def test_a_uri_that_names_no_absolute_path_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match=r"^storage: .*file:///path"):
        local_root(uri)


def test_a_writable_root_is_created_and_left_empty(tmp_path: Path) -> None:
    root = writable_root(str(tmp_path / "new" / "storage"))
    assert root.is_dir()
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("below", ["", "storage"])
def test_storage_that_cannot_be_written_is_a_settings_error(tmp_path: Path, below: str) -> None:
    file = tmp_path / "a-file"
    file.write_bytes(b"")
    with pytest.raises(SettingsError, match=r"^storage: .*a-file.* cannot be written") as error:
        writable_root(str(file / below) if below else str(file))
    assert error.value.exit_code == 2


def test_what_is_published_can_be_read_by_others(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    temporary = storage.temporary_sibling(tmp_path / "published")
    temporary.touch(mode=0o600)
    storage.put_file(temporary, tmp_path / "published")
    assert (tmp_path / "published").stat().st_mode == usual.stat().st_mode
