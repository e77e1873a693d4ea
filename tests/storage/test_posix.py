from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raysae.storage.posix import FileStat, Posix


@pytest.fixture
def posix() -> Posix:
    return Posix()


def test_a_listing_is_in_the_order_of_whole_paths(tmp_path: Path, posix: Posix) -> None:
    names = ["a/z", "a-b", "a", "a/b/c", "a0", "ü", "Z", "a.d/x"]
    for name in names:
        if name != "a":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(name.encode())
    found = [path.relative_to(tmp_path).as_posix() for path, _, _ in posix.files(tmp_path)]
    assert found == sorted(set(names) - {"a"})


def test_a_listing_tells_sizes_and_times(tmp_path: Path, posix: Posix) -> None:
    (tmp_path / "a").write_bytes(b"123")
    os.utime(tmp_path / "a", (5, 7.5))
    assert list(posix.files(tmp_path)) == [FileStat(tmp_path / "a", 3, 7.5)]
    assert posix.stat(tmp_path / "a") == FileStat(tmp_path / "a", 3, 7.5)


def test_links_to_directories_are_not_followed_in_listings(tmp_path: Path, posix: Posix) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "to-file").symlink_to(tmp_path / "there" / "file")
    found = [path.relative_to(tmp_path).as_posix() for path, _, _ in posix.files(tmp_path)]
    assert found == ["there/file", "to-file"]
    assert posix.directories(tmp_path) == ["circle", "link", "there"]


def test_only_files_have_sizes(tmp_path: Path, posix: Posix) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert posix.stat(tmp_path) is None
    assert posix.stat(tmp_path / "none") is None
    assert posix.stat(tmp_path / "file" / "below") is None


def test_a_name_that_no_file_can_have_is_that_of_none(tmp_path: Path, posix: Posix) -> None:
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert posix.stat(tmp_path / "circle") is None
    assert posix.stat(tmp_path / ("x" * 300)) is None


def test_what_the_system_refuses_to_tell_is_an_error(
    tmp_path: Path, posix: Posix, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(PermissionError):
        posix.stat(tmp_path / "file")


@pytest.mark.parametrize("name", ["none", "file", "file/below"])
def test_what_is_no_directory_holds_nothing(tmp_path: Path, posix: Posix, name: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert list(posix.files(tmp_path / name)) == []
    assert posix.directories(tmp_path / name) == []
    assert not posix.is_directory(tmp_path / name)


def test_synced_files_have_the_permissions_of_any_other(tmp_path: Path, posix: Posix) -> None:
    (tmp_path / "usual").touch()
    (tmp_path / "private").touch(mode=0o600)
    posix.sync_file(tmp_path / "private")
    assert (tmp_path / "private").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_takes_no_name_that_is_taken(tmp_path: Path, posix: Posix) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        posix.link(tmp_path / "one", tmp_path / "two")
    posix.link(tmp_path / "one", tmp_path / "three")
    assert (tmp_path / "three").read_text() == "one"
    assert (tmp_path / "two").read_text() == "two"


def test_what_is_gone_can_be_removed_and_what_is_there_made_again(
    tmp_path: Path, posix: Posix
) -> None:
    posix.unlink(tmp_path / "none")
    posix.make_directory(tmp_path / "a")
    posix.make_directory(tmp_path / "a")
    posix.sync_directory(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        posix.make_directory(tmp_path / "b" / "c")


def test_files_and_directories_are_synced(
    tmp_path: Path, posix: Posix, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    synced: list[int] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    posix.sync_file(tmp_path / "file")
    posix.sync_directory(tmp_path)
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]
