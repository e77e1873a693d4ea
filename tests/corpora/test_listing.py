from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raysae.corpora import CorpusSettings, open_corpus
from raysae.corpora.listing import list_local
from raysae.errors import DataError, SettingsError
from tests.corpora.rows import ODD_NAMES, row, write_rows


def names(path: Path) -> list[str]:
    return [file.name for file in list_local(path, "corpus.path").files]


def empty(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_links_to_files_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    target = empty(tmp_path / "elsewhere" / "x.parquet")
    corpus = tmp_path / "corpus"
    empty(corpus / "train" / "a.parquet")
    (corpus / "b.parquet").symlink_to(target)
    (corpus / "train" / "loop").symlink_to(corpus)
    (corpus / "linked.parquet").symlink_to(target.parent)
    os.mkfifo(corpus / "pipe.parquet")
    assert names(corpus) == ["b.parquet", "train/a.parquet"]
    (tmp_path / "link").symlink_to(corpus)
    assert names(tmp_path / "link") == ["b.parquet", "train/a.parquet"]
    assert names(tmp_path / "link" / "b.parquet") == ["b.parquet"]


@pytest.mark.parametrize("target", ["missing.parquet", "self.parquet"])
def test_a_link_to_nothing_is_no_silent_loss(tmp_path: Path, target: str) -> None:
    empty(tmp_path / "a.parquet")
    (tmp_path / "self.parquet").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=r"self\.parquet is a link to a file that is missing"):
        names(tmp_path)


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_odd_names_are_read(tmp_path: Path, name: str, form: str) -> None:
    directory = tmp_path / "odd ü"
    write_rows(directory / name, [row(question=name)])
    path = form.format(directory)
    corpus = open_corpus(CorpusSettings("align-anything", path))
    assert [file.name for file in corpus.snapshot.files] == [name]
    assert corpus.read(0, 0, 1)["question"].to_pylist() == [name]


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet")).touch()
    with pytest.raises(DataError, match=r"udcff.parquet' has a name that is no UTF-8; rename it"):
        names(tmp_path)


def test_hidden_names_are_left_out(tmp_path: Path) -> None:
    for name in (
        ".a.parquet",
        "_a.parquet",
        "_tmp/a.parquet",
        ".git/x/a.parquet",
        "x/.y/a.parquet",
    ):
        empty(tmp_path / name)
    empty(tmp_path / "x" / "a.parquet")
    empty(tmp_path / "x" / "a.PARQUET")
    assert names(tmp_path) == ["x/a.parquet"]


def unlistable(directory: Path, error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a directory that the system refuses to list."""
    directory.mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if path == str(directory):
            raise type(error)(error.errno, error.strerror, path)
        return scandir(path)

    monkeypatch.setattr("raysae.corpora.listing.os.scandir", refuse)


def test_a_directory_that_may_not_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty result would be a corpus without these files."""
    empty(tmp_path / "a.parquet")
    unlistable(tmp_path / "locked", PermissionError(13, "Permission denied"), monkeypatch)
    with pytest.raises(SettingsError, match=r"^corpus\.path: .*/locked cannot be listed"):
        names(tmp_path)


def test_every_change_of_a_file_changes_its_key(tmp_path: Path) -> None:
    path = empty(tmp_path / "a.parquet")
    keys = set()

    def note() -> None:
        (file,) = list_local(tmp_path, "x").files
        keys.add(file.key)

    note()
    path.write_bytes(b"x")
    note()
    os.utime(path, (1, 1))
    note()
    path.write_bytes(b"y")
    os.utime(path, (1, 1))  # size and mtime are as before: ctime tells
    note()
    path.rename(tmp_path / "b.parquet")
    note()
    note()
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory"), "went away while .* run again"),
        (OSError(116, "Stale file handle"), r"cannot be listed \(Stale file handle\)"),
    ],
)
def test_a_directory_that_goes_away_while_it_is_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    empty(tmp_path / "a.parquet")
    unlistable(tmp_path / "gone", error, monkeypatch)
    with pytest.raises(DataError, match=f"/gone {words}"):
        names(tmp_path)
