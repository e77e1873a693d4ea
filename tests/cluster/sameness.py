"""Whether two storages hold the same, byte for byte where that can be, and nothing in doubt.

Files are read by docs/storage.md with pyarrow and `json` alone. Page, times and machine of a run
are no content: of `metadata.json` only what is listed counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load

from tests.cluster.content import Storage, live_scores, read
from tests.cluster.settings import ROWS
from tests.reference.storage_reader import FoundArtifact, read_artifact

SAME_BYTES = ("snapshots", "activations", "saes", "weights", "subsets")
"""Kinds of which all files are the same, whoever makes them on these machines."""

SHARDED = ("activations", "weights")
OPTIONAL = ("reports", "tuned")
TUNED_ATOL = 1e-5
"""Of a model's weights after a few steps: about a hundredth of what these steps change."""
OWN_FILES = {"spec.json", "metadata.json"}

LEFT_BY_THE_KILLED = re.compile(
    r"(^|/)\.tmp-"  # unfinished
    r"|^(attempts|work)/"  # a driver died between metadata.json and the end of its cleaning
    r"|(^|/)(shard|rows)-[^/]*-[0-9a-f]{16}\.[a-z_.]+$"  # published, but never marked
)
"""Files of an artifact that a killed run may leave, and nobody reads."""

LEFT_IN_SCORES = re.compile(r"(^|/)\.tmp-|^attempts/|^data/.*-[0-9a-f]{16}\.parquet$")


def assert_same_content(expected: Storage, found: Storage) -> None:
    """See that a storage holds what an undisturbed one does, complete and undamaged."""
    for kind in SAME_BYTES:
        assert_same_bytes(kind, expected, found)
    _assert_tuned_alike(expected, found)
    assert live_scores(found) == live_scores(expected)
    assert _told_of_scores(found.root) == _told_of_scores(expected.root)
    assert_all_rows_are_accounted_for(found.root)
    assert_nothing_unlisted(found.root)


def assert_same_bytes(kind: str, expected: Storage, found: Storage) -> None:
    """Compare all artifacts of a kind: names, specs, and every file."""
    there, here = (dict(_artifacts(storage.root / kind)) for storage in (expected, found))
    assert there.keys() == here.keys(), kind
    for name, artifact in there.items():
        assert here[name].spec == artifact.spec
        other = [file for file, data in artifact.files.items() if here[name].files[file] != data]
        assert not other, f"{kind}/{name}: {other} have other bytes"
        assert here[name].files.keys() == artifact.files.keys()
        assert _told(here[name].metadata) == _told(artifact.metadata), f"{kind}/{name}"
        for shard, mark in artifact.marks.items():
            assert _told(here[name].marks[shard]) == _told(mark), f"{kind}/{name}, {shard}"


def _told(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what metadata or a mark tells of rows."""
    return {name: told[name] for name in ("rows", "rejected", "rejections")}


def _told_of_scores(root: Path) -> dict[str, dict[str, Any]]:
    """Return what the live row groups' marks tell, by data file; its name tells its content."""
    return {live["path"]: _told(_mark_of(root, live)) for live in _live(root)}


def _assert_tuned_alike(expected: Storage, found: Storage) -> None:
    """A tuning that was interrupted adds its gradients up in another order."""
    if not (found.root / "tuned").exists():
        return
    (before,), (after,) = (list(_artifacts(s.root / "tuned")) for s in (expected, found))
    assert before[0] == after[0]
    assert before[1].files.keys() == after[1].files.keys()
    assert _told(before[1].metadata) == _told(after[1].metadata)
    losses = [[step["loss"] for step in tuned[1].metadata["steps"]] for tuned in (before, after)]
    np.testing.assert_allclose(*losses, atol=1e-5)
    tensors = [_tensors(artifact) for _, artifact in (before, after)]
    assert tensors[0].keys() == tensors[1].keys()
    for name, tensor in tensors[0].items():
        np.testing.assert_allclose(tensor, tensors[1][name], atol=TUNED_ATOL, err_msg=name)


def _tensors(artifact: FoundArtifact) -> dict[str, np.ndarray]:
    """Return a model's weights."""
    files = (data for name, data in artifact.files.items() if name.endswith(".safetensors"))
    return {name: tensor for data in files for name, tensor in load(data).items()}


def _artifacts(directory: Path) -> Iterator[tuple[str, FoundArtifact]]:
    """Yield a kind's artifacts, each read whole and found undamaged."""
    for path in sorted(directory.iterdir()):
        artifact = read_artifact(path)
        assert artifact is not None, f"{path} is not finished"
        yield path.name, artifact


def assert_all_rows_are_accounted_for(root: Path) -> None:
    """Every row of every shard is among the used ones or the rejected ones."""
    for kind in SHARDED:
        for _, artifact in _artifacts(root / kind):
            ranges = _ranges(artifact)
            if kind == "activations":
                assert _accounted(artifact.marks.values()) == ROWS
                assert sum(stop - start for start, stop in ranges.values()) == ROWS
                for shard, (start, stop) in ranges.items():
                    assert _accounted([artifact.marks[shard]]) == stop - start, shard
            assert _accounted(artifact.marks.values()) == (
                artifact.metadata["rows"] + artifact.metadata["rejected"]
            )
    for live in _live(root):
        mark = _mark_of(root, live)
        assert _accounted([mark]) == live["stop"] - live["start"], live
    for _, subset in _artifacts(root / "subsets"):
        assert subset.metadata["scored"] + subset.metadata["rejected"] == ROWS
        written = [
            pq.ParquetFile(root / "subsets" / subset.id / name).metadata.num_rows
            for name in subset.metadata["data_files"]
        ]
        assert sum(written) == subset.metadata["rows"]


def _ranges(artifact: FoundArtifact) -> dict[str, tuple[int, int]]:
    """Return the row range of every shard, from the shard list."""
    return {
        name: (mark["shard"]["start"], mark["shard"]["stop"])
        for name, mark in artifact.marks.items()
    }


def _accounted(marks: Iterable[dict[str, Any]]) -> int:
    """Return how many rows marks tell of; each rejected one is told of once."""
    total = 0
    for mark in marks:
        ordinals = [row["ordinal"] for row in mark["rejections"]]
        assert len(set(ordinals)) == len(ordinals) == mark["rejected"]
        if "shard" in mark:
            first, shard = mark["shard"]["first_ordinal"], mark["shard"]
            assert all(0 <= o - first < shard["stop"] - shard["start"] for o in ordinals), mark
        total += mark["rows"] + mark["rejected"]
    return total


def assert_nothing_unlisted(root: Path) -> None:
    """No file lies about but what a killed run may leave."""
    assert read(root / "raysae.json") == {"format_version": 2}
    for kind in (*SAME_BYTES, *OPTIONAL):
        if (root / kind).exists():
            for name, artifact in _artifacts(root / kind):
                _assert_listed(root / kind / name, artifact)
    scores = root / "scores"
    live = _live(root)
    listed = {row["path"] for row in live} | {f"marks/{_key(row)}.done.json" for row in live}
    listed |= {f"manifests/{path.name}" for path in (scores / "manifests").glob("*.parquet")}
    unlisted = set(_files(scores)) - listed
    assert not {name for name in unlisted if not LEFT_IN_SCORES.search(name)}, scores
    known = {"raysae.json", "scores", "uses", ".probes", *SAME_BYTES, *OPTIONAL}
    assert {path.name for path in root.iterdir()} <= known


def _assert_listed(directory: Path, artifact: FoundArtifact) -> None:
    marks = {f"{shard}.done.json" for shard in artifact.marks}
    unlisted = set(_files(directory)) - artifact.files.keys() - marks - OWN_FILES
    assert not {name for name in unlisted if not LEFT_BY_THE_KILLED.search(name)}, directory


def _files(directory: Path) -> Iterator[str]:
    return (p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def _live(root: Path) -> list[dict[str, Any]]:
    manifest = max((root / "scores" / "manifests").glob("*.parquet"))
    return list(pq.read_table(manifest).to_pylist())


def _key(live: dict[str, Any]) -> str:
    return Path(live["path"]).name.split("-")[0]


def _mark_of(root: Path, live: dict[str, Any]) -> dict[str, Any]:
    mark = json.loads((root / "scores" / "marks" / f"{_key(live)}.done.json").read_text())
    assert mark["files"] == [
        {"name": live["path"], "size": live["size"], "sha256": live["sha256"]}
    ], live
    assert isinstance(mark, dict)
    return mark
