"""Artifacts whose files have fixed names, made by runs that come to other bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raysae.artifacts import Artifact, ArtifactSpec, Publication, file_sha256
from raysae.errors import DataError, StorageError
from raysae.stages._outcome import Outcome, finish_once
from raysae.storage import Directory, open_storage
from raysae.upkeep.verify import VerifySettings, run_verify

Make = Callable[[Publication], dict[str, Any]]


@pytest.fixture
def artifact(storage_root: Directory) -> Artifact:
    made = Artifact(storage_root, ArtifactSpec("weights", 1, {}))
    made.begin()
    return made


def maker(by: str, meanwhile: Callable[[], object] = lambda: None) -> Make:
    """A run's own files, and what happens while it makes them."""

    def make(files: Publication) -> dict[str, Any]:
        files.put_bytes("a.bin", f"first of {by}".encode())
        meanwhile()
        files.put_bytes("below/b.bin", f"second of {by}".encode())
        return {"rows": 7, "by": by}

    return make


def check(artifact: Artifact, by: str) -> None:
    """See that the artifact is one run's, to the byte, and that nothing else is there."""
    assert artifact.is_finished()
    metadata = artifact.metadata()
    assert metadata["by"] == by
    assert artifact.directory.read_bytes("a.bin") == f"first of {by}".encode()
    for file in metadata["files"]:
        with artifact.directory.fetched([file["name"]]) as copies:
            assert file_sha256(copies / file["name"]) == file["sha256"]
    names = {entry.key for entry in artifact.directory.entries()}
    assert names == {"spec.json", "metadata.json", "a.bin", "below/b.bin"}


def never(_: Publication) -> dict[str, Any]:
    pytest.fail("made twice")


def test_what_the_maker_tells_is_in_the_metadata(artifact: Artifact) -> None:
    metadata = finish_once(artifact, maker("me"))
    assert metadata == artifact.metadata()
    assert (metadata["rows"], metadata["by"]) == (7, "me")
    check(artifact, "me")
    assert finish_once(artifact, never) == metadata


def test_a_run_that_was_overtaken_leaves_the_others_result_alone(artifact: Artifact) -> None:
    finish_once(artifact, maker("slow", lambda: finish_once(artifact, maker("quick"))))
    check(artifact, "quick")


def test_who_claimed_first_counts_whoever_finishes(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run finishes between this one's claim and its own finish."""
    finish = Artifact.finish

    def overtaken(self: Artifact, *arguments: Any) -> None:
        monkeypatch.setattr(Artifact, "finish", finish)
        finish_once(artifact, never)
        finish(self, *arguments)

    monkeypatch.setattr(Artifact, "finish", overtaken)
    finish_once(artifact, maker("first"))
    check(artifact, "first")


def test_a_run_goes_on_with_what_a_killed_one_claimed(artifact: Artifact) -> None:
    outcome = Outcome(artifact)
    files = outcome.new_try()
    outcome.claim(files, maker("killed")(files))
    finish_once(artifact, never)
    check(artifact, "killed")


def test_a_lost_file_is_made_again_with_the_rest(artifact: Artifact) -> None:
    finish_once(artifact, maker("first"))
    artifact.directory.delete("a.bin")
    finish_once(artifact, maker("other"))
    check(artifact, "other")


def test_the_work_stays_until_all_of_it_is_in_its_place(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Directory.copy_to

    def lose(self: Directory, name: str, target: Directory) -> None:
        copy(self, name, target)
        target.put_bytes(name, b"")

    with monkeypatch.context() as lossy:
        lossy.setattr(Directory, "copy_to", lose)
        with pytest.raises(StorageError, match="lacks files that were just put there; run again"):
            finish_once(artifact, maker("me"))
    assert not artifact.is_finished()
    finish_once(artifact, never)
    check(artifact, "me")


@pytest.mark.parametrize(
    "stored", [b"{}", b'{"try": "x", "files": [{}], "about": {}}', b'{"try": "x", "files": []}']
)
def test_a_damaged_outcome_is_named(artifact: Artifact, stored: bytes) -> None:
    Outcome(artifact).work.put_bytes("outcome.json", stored)
    with pytest.raises(DataError, match=r"outcome\.json is damaged .*; delete it and run again"):
        finish_once(artifact, never)


def test_a_try_that_lost_its_files_is_named(artifact: Artifact) -> None:
    outcome = Outcome(artifact)
    files = outcome.new_try()
    outcome.claim(files, maker("me")(files))
    files.directory.delete("a.bin")
    with pytest.raises(DataError, match=r"lacks files .*; delete that file and run again"):
        finish_once(artifact, never)


def test_what_a_killed_run_left_does_not_come_back_when_it_is_damaged(
    artifact: Artifact, storage_root: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver died before it cleared the work away; on a disk that holds the same inodes."""
    with monkeypatch.context() as patch:
        patch.setattr(Outcome, "remove", lambda _: None)
        finish_once(artifact, maker("first"))
    stored = artifact.directory.read_json("work/outcome.json")
    for name in ("a.bin", f"work/{stored['try']}/a.bin"):
        artifact.directory.put_bytes(name, b"f_rst of first")
    with pytest.raises(DataError, match="damaged"):
        run_verify(VerifySettings(str(open_storage(str(storage_root))), repair=True))
    finish_once(artifact, maker("second"))
    check(artifact, "second")
