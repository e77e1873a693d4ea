from __future__ import annotations

import pytest

from raysae.artifacts import Artifact, ArtifactSpec, Publication, fetched_whole
from raysae.errors import DataError
from raysae.storage import Directory


@pytest.fixture
def finished(storage_root: Directory) -> Artifact:
    made = Artifact(storage_root, ArtifactSpec("saes", 1, {}))
    made.begin()
    publication = Publication(made.directory)
    publication.put_bytes("a.bin", b"first")
    publication.put_bytes("b.bin", b"second")
    made.finish({"rows": 1, "rejected": 0}, publication.records)
    return made


def test_files_as_they_were_written(finished: Artifact) -> None:
    with fetched_whole(finished.directory, ["a.bin", "b.bin"]) as files:
        assert (files / "a.bin").read_bytes() == b"first"
        assert (files / "b.bin").read_bytes() == b"second"


def test_bytes_that_were_altered_are_not_used(finished: Artifact) -> None:
    finished.directory.put_bytes("b.bin", b"sec0nd")
    with fetched_whole(finished.directory, ["a.bin"]):
        pass
    with (
        pytest.raises(DataError, match=r"b.bin is damaged: .* jobs/verify.py with --repair"),
        fetched_whole(finished.directory, ["a.bin", "b.bin"]),
    ):
        pass


def test_a_file_that_nothing_lists_is_not_used(finished: Artifact) -> None:
    finished.directory.put_bytes("c.bin", b"third")
    with pytest.raises(DataError, match="damaged"), fetched_whole(finished.directory, ["c.bin"]):
        pass


@pytest.mark.parametrize("name", ["a.bin", "metadata.json"])
def test_what_somebody_took_away_is_told(finished: Artifact, name: str) -> None:
    finished.directory.delete(name)
    with (
        pytest.raises(DataError, match="not finished any more; run again"),
        fetched_whole(finished.directory, ["a.bin"]),
    ):
        pass


def test_what_goes_wrong_in_the_block_is_not_taken_for_a_lost_file(finished: Artifact) -> None:
    with (
        pytest.raises(FileNotFoundError, match="something else"),
        fetched_whole(finished.directory, ["a.bin"]),
    ):
        raise FileNotFoundError("something else")
