from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from raysae.artifacts import METADATA_FILE, SPEC_FILE
from raysae.artifacts.uses import using
from raysae.errors import DataError
from raysae.storage import MARKER, TEMPORARY_PREFIX, Directory
from raysae.storage.temporaries import temporary_name
from tests.upkeep.builders import (
    HOUR,
    INPUTS,
    WEEK,
    age,
    artifact,
    new_storage,
    row_group,
    sharded,
    tree,
    write_scores,
)
from tests.upkeep.helpers import files, garbage


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


def test_an_artifact_with_an_altered_specification_may_need_anything(
    root: Directory, later: Callable[[float], None]
) -> None:
    cache = sharded(root)
    sae = artifact(root, "saes", {"activations": cache.id})
    written = sae.directory.read_json(SPEC_FILE)
    written["spec"]["inputs"] = {"activations": "another"}
    sae.directory.put_json(SPEC_FILE, written)
    later(2 * WEEK)
    assert garbage(root, delete=True, used_caches=True) == {}
    assert cache.is_finished()


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
        root.put_bytes(name, b'{"artifacts": []}')
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


@pytest.mark.parametrize("sign", ["none", "spec", "use", "checkpoint"])
def test_work_on_a_finished_artifact_that_lost_a_file_stays(tmp_path: Path, sign: str) -> None:
    root = new_storage(tmp_path)
    made = artifact(root, "tuned", files=("model.safetensors",))
    made.directory.delete("model.safetensors")
    made.directory.put_bytes("work/preferences.arrow", b"x")
    age(tmp_path, 2 * WEEK)
    with ExitStack() as stack:
        if sign == "use":
            stack.enter_context(using(root, [made.name]))
        elif sign == "spec":
            made.begin()
        elif sign == "checkpoint":
            made.directory.put_bytes("work/checkpoints/token/state", b"x")
        garbage(root, delete=True)
        assert made.directory.exists("work/preferences.arrow") == (sign != "none")


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
    finished = artifact(root, "discoveries", number=1)
    for name in ("more.bin", "attempts/shard-00000.read-1", f"{TEMPORARY_PREFIX}of-somebody"):
        finished.directory.put_bytes(name, b"known to another version")
    age(tmp_path, 2 * WEEK)
    before = tree(tmp_path)
    assert garbage(root, delete=True) == {}
    assert tree(tmp_path) == before
    said = capsys.readouterr().out
    for name in ("notes", "saes/my best SAE", "scores/stray", "inventions"):
        assert f"note: {name} is no" in said
    assert later.directory.exists(SPEC_FILE)


def test_a_use_that_cannot_be_read_may_be_of_anything(
    root: Directory, later: Callable[[float], None]
) -> None:
    weights = sharded(root, "weights")
    later(2 * WEEK)
    root.put_bytes("uses/old.json", b"{}")
    assert garbage(root) == {weights.name: "unreferenced", "uses": "left"}
    later(0)
    with pytest.raises(DataError, match=r"uses/old.json does not tell what a run reads"):
        garbage(root)
