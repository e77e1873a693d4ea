from __future__ import annotations

import os
from pathlib import Path

import pytest

from raysae.errors import StorageError
from raysae.storage.removal import is_inside, prune, remove_inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a file, beside it a directory that is none of its business."""
    for name in ("root/a/b/file", "outside/file", "outside/deep/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "root"


def outside(root: Path) -> list[str]:
    return sorted(path.name for path in (root.parent / "outside").rglob("*"))


def test_a_file_is_removed_and_its_directory_stays(root: Path) -> None:
    for _ in range(2):
        remove_inside(root, "a/b/file")
        assert not (root / "a" / "b" / "file").exists()
    assert (root / "a" / "b").is_dir()


@pytest.mark.parametrize(
    "key", ["none", "none/none", "a/none/file", "a/b/file/below", "a/b/file/far/below", "a/b"]
)
def test_what_is_no_file_is_removed(root: Path, key: str) -> None:
    for storage in (root, root / "no-storage", root / "a" / "b" / "file"):
        remove_inside(storage, key)
    assert (root / "a" / "b" / "file").exists()


@pytest.mark.parametrize("link", ["a/link", "a/b"])
def test_nothing_is_removed_through_a_link(root: Path, link: str) -> None:
    if (root / link).is_dir():
        (root / link / "file").unlink()
        (root / link).rmdir()
    (root / link).symlink_to(root.parent / "outside")
    before = outside(root)
    for below in ("file", "deep/file"):
        with pytest.raises(StorageError, match=r"through a symbolic link, so it is left alone"):
            remove_inside(root, f"{link}/{below}")
    assert outside(root) == before
    assert not is_inside(root, link)
    assert not is_inside(root, f"{link}/deep")


def test_a_link_is_removed_itself(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "outside" / "file")
    before = outside(root)
    remove_inside(root, "link")
    assert not (root / "link").is_symlink()
    assert outside(root) == before


def test_a_root_may_be_reached_through_a_link(root: Path) -> None:
    (root.parent / "way").symlink_to(root)
    assert is_inside(root.parent / "way", "a/b")
    remove_inside(root.parent / "way", "a/b/file")
    assert not (root / "a" / "b" / "file").exists()


def test_what_the_system_refuses_names_the_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(name: str, dir_fd: int) -> None:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "unlink", denied)
    with pytest.raises(PermissionError) as error:
        remove_inside(root, "a/b/file")
    assert error.value.filename == str(root / "a" / "b" / "file")


def test_descriptors_are_closed(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    (root / "link").symlink_to(root)
    for key in ("a/b/file", "none/x", "a/none"):
        remove_inside(root, key)
    with pytest.raises(StorageError):
        remove_inside(root, "link/a")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_empty_directories_go_and_others_stay(root: Path) -> None:
    (root / "e" / "mpty" / "deep").mkdir(parents=True)
    prune(root, "e/mpty")
    assert (root / "e").is_dir()
    assert not (root / "e" / "mpty").exists()
    prune(root, "")
    assert not (root / "e").exists()
    assert (root / "a" / "b" / "file").exists()
    (root / "a" / "b" / "file").unlink()
    prune(root, "a")
    assert list(root.iterdir()) == []
    prune(root, "none")


def test_links_are_not_followed_when_empty_directories_go(root: Path) -> None:
    empty = root.parent / "outside" / "empty"
    empty.mkdir()
    (root / "link").symlink_to(root.parent / "outside")
    for prefix in ("", "link", "link/empty"):
        prune(root, prefix)
    assert empty.is_dir()
    assert (root / "link").is_symlink()
