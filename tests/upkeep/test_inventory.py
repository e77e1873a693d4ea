from __future__ import annotations

import errno
from pathlib import Path

import pytest

from raysae.artifacts import METADATA_FILE, SPEC_FILE
from raysae.artifacts.uses import using
from raysae.errors import DataError
from raysae.storage import MARKER, Directory, open_storage
from raysae.storage.local import LocalBackend
from raysae.storage.posix import Posix
from raysae.upkeep.inventory import artifacts, links, look_at, open_for_upkeep, strangers
from tests.upkeep.builders import artifact, new_storage, odd_files, row_group, sharded, write_scores
from tests.upkeep.helpers import verified


def test_artifacts_in_the_chains_order(root: Directory) -> None:
    cache = sharded(root)
    sae = artifact(root, "saes", {"activations": cache.id})
    write_scores(root, row_group())
    found = list(artifacts(root))
    assert [one.name for one in found] == [cache.name, sae.name]
    assert [one.planned for one in found] == [3, 0]
    assert all(one.finished_at and not one.problems and not one.linked for one in found)
    assert links(found) == {cache.name: set(), sae.name: {cache.name}}
    assert strangers(root) == []


def test_one_kind_or_one_artifact(root: Directory) -> None:
    cache, sae = sharded(root), artifact(root, "saes")
    assert [one.name for one in artifacts(root, "saes")] == [sae.name]
    assert [one.name for one in artifacts(root, name=cache.name)] == [cache.name]


def test_inputs_are_found_wherever_they_stand(root: Directory) -> None:
    one, two = artifact(root, "weights", number=1), artifact(root, "weights", number=2)
    user = artifact(root, "reports", {"a": [{"b": one.id}], "c": f"weights/{two.id}", "n": 3})
    assert links(artifacts(root))[user.name] == {one.name, two.name}


def test_strangers_are_told_but_not_understood(tmp_path: Path) -> None:
    root = new_storage(tmp_path)
    (tmp_path / "saes" / "not an id ü").mkdir(parents=True)
    (tmp_path / "notes" / "sub").mkdir(parents=True)
    (tmp_path / "notes" / "sub" / "file").write_bytes(b"")
    assert list(artifacts(root)) == []
    assert strangers(root) == ["saes/not an id ü", "notes"]


def test_an_artifact_of_an_unknown_kind_is_seen_for_what_it_was_made_from(root: Directory) -> None:
    cache = sharded(root)
    later = artifact(root, "inventions", {"activations": cache.id})
    assert links(artifacts(root))[later.name] == {cache.name}


@pytest.mark.parametrize("name", [SPEC_FILE, METADATA_FILE])
@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"files": [{"name": "../x"}], "spec": {"a": 1}}']
)
def test_a_damaged_file_is_a_sentence(root: Directory, name: str, content: bytes) -> None:
    made = artifact(root, "saes")
    made.directory.put_bytes(name, content)
    (found,) = artifacts(root)
    problem = found.problems[0]
    assert problem.file in {SPEC_FILE, METADATA_FILE}
    assert problem.sentence


def test_a_directory_moved_to_another_name_is_found_out(tmp_path: Path) -> None:
    root = new_storage(tmp_path)
    made = artifact(root, "saes")
    (tmp_path / "saes" / made.id).rename(tmp_path / "saes" / ("0" * 24))
    assert "another" in look_at(root, "saes", "0" * 24).problems[0].sentence


def test_what_an_altered_specification_was_made_from_is_not_known(root: Directory) -> None:
    made = artifact(root, "saes", {"activations": "one"})
    written = made.directory.read_json(SPEC_FILE)
    written["spec"]["inputs"] = {"activations": "two"}
    made.directory.put_json(SPEC_FILE, written)
    (found,) = artifacts(root)
    assert found.inputs is None
    assert "another" in found.problems[0].sentence


@pytest.mark.parametrize(
    "altered", [{"id": "0" * 24}, {"spec": {}}, {"spec": {"kind": "saes", "settings": {}}}]
)
def test_metadata_that_were_altered_are_found_out(
    root: Directory, altered: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    made = artifact(root, "saes")
    metadata = {**made.metadata(), **altered}
    made.directory.put_json(METADATA_FILE, metadata)
    (found,) = artifacts(root)
    assert [problem.file for problem in found.problems] == [METADATA_FILE]
    with pytest.raises(DataError, match="although the id is the same; move the directory away"):
        made.is_finished()
    whole, told = verified(root, capsys, repair=True)
    assert not whole
    assert told["removed"] == []


def test_a_directory_whose_name_is_no_text_is_told_with_escapes(tmp_path: Path) -> None:
    root = new_storage(tmp_path)
    odd_files(tmp_path, b"saes/\xff/x", b"no\xfftes/x", b"saes/two\nlines/x")
    assert list(artifacts(root)) == []
    assert sorted(strangers(root)) == [r"no\xfftes", r"saes/\xff", r"saes/two\nlines"]


def test_what_lies_behind_a_link_is_said_to(tmp_path: Path) -> None:
    root = new_storage(tmp_path / "s")
    made = artifact(root, "saes")
    (tmp_path / "s" / "saes").rename(tmp_path / "elsewhere")
    (tmp_path / "s" / "saes").symlink_to(tmp_path / "elsewhere")
    assert [(one.name, one.linked) for one in artifacts(root)] == [(made.name, True)]


class Denying(Posix):
    """A file system that does not let the SAEs be listed."""

    def directories(self, directory: Path) -> list[str]:
        if directory.name == "saes":
            raise PermissionError(errno.EACCES, "Permission denied", str(directory))
        return super().directories(directory)


def test_a_directory_that_cannot_be_listed_is_a_problem(tmp_path: Path) -> None:
    artifact(new_storage(tmp_path), "saes")
    (found,) = artifacts(Directory(LocalBackend(tmp_path, Denying())))
    assert found.inputs is None
    assert "denied" in found.problems[0].sentence


def test_no_storage_and_a_newer_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=MARKER):
        open_for_upkeep(str(tmp_path))
    open_storage(str(tmp_path)).put_json(MARKER, {"format_version": 99})
    with pytest.raises(DataError, match="format 99"):
        open_for_upkeep(str(tmp_path))


def test_uses_and_scores_are_no_artifacts(root: Directory) -> None:
    write_scores(root, row_group())
    with using(root, ["saes/x"]):
        assert list(artifacts(root)) == []
        assert strangers(root) == []
