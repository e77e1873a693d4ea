"""Little storages, built with the package's own writers, as the stages would."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from raysae.artifacts import (
    CHECKSUM,
    SCORE_SCHEMA,
    Artifact,
    ArtifactSpec,
    Publication,
    RowGroup,
    ScoreTable,
    ShardPlan,
)
from raysae.storage import MARKER, Directory, open_storage

HOUR = 3600.0
WEEK = 168 * HOUR

INPUTS = {"inputs": {"sae": "s", "weights": "w"}}
"""What the mark of a row group tells that it was made from."""


def new_storage(path: Path) -> Directory:
    """A storage in a directory."""
    return open_storage(str(path))


def artifact(
    root: Directory,
    kind: str,
    inputs: Mapping[str, Any] | None = None,
    *,
    number: int = 0,
    files: Sequence[str] = ("data.bin",),
    finished: bool = True,
) -> Artifact:
    """An artifact without shards; `number` tells it from others with the same inputs."""
    made = Artifact(root, ArtifactSpec(kind, 1, {"number": number}, dict(inputs or {})))
    made.begin()
    publication = Publication(made.directory)
    for name in files:
        publication.put_bytes(name, f"{kind} {number} {name}".encode() * 10)
    if finished:
        made.finish({"rows": 7, "rejected": 0}, publication.records)
    return made


def sharded(
    root: Directory,
    kind: str = "activations",
    inputs: Mapping[str, Any] | None = None,
    *,
    shards: int = 3,
    done: int | None = None,
    number: int = 0,
    shard_bytes: int = 1000,
) -> Artifact:
    """A sharded artifact: finished, or with its first `done` shards complete."""
    made = Artifact(root, ArtifactSpec(kind, 1, {"number": number}, dict(inputs or {})))
    plan = ShardPlan([10 * shards], 10)
    made.begin(len(plan))
    for index, shard in enumerate(plan[: shards if done is None else done]):
        publication = Publication(made.directory)
        with publication.writing(f"data/{shard.name}-{CHECKSUM}.arrow") as local:
            local.write_bytes(bytes([index % 251, number]) * (shard_bytes // 2))
        publication.put_bytes(f"{shard.name}.samples.parquet", f"samples of {index}".encode())
        rejected = [{"sample_id": "x", "ordinal": 1, "reason": "no-image", "detail": ""}] * (
            index % 2
        )
        made.mark_shard(
            shard.name,
            publication.records,
            {"rows": 10 - len(rejected), "rejected": len(rejected), "rejections": rejected},
        )
    if done is None:
        made.finish({}, shards=plan)
    return made


def row_group(
    start: int = 0, corpus: str = "corpus", scorer: str = "union", lineage: str = "l"
) -> RowGroup:
    """A row group of ten rows."""
    return RowGroup(corpus, scorer, f"{lineage}-{corpus}-{scorer}", start, start + 10)


def write_scores(
    root: Directory,
    *groups: RowGroup,
    extra: Mapping[str, Any] | None = None,
    publish: bool = True,
    series: str = "s",
) -> ScoreTable:
    """Score row groups, and publish them as one series."""
    table = ScoreTable(root)
    for group in groups:
        content = {"rejected": 0, "rejections": [], **(extra or {})}
        table.write(group, scores_of(group), content)
    if publish:
        table.publish(groups, series)
    return table


def scores_of(group: RowGroup, more: float = 0.0) -> pa.Table:
    """A row group's scores: a sample's number and something more."""
    rows = [
        {
            "sample_id": f"{group.corpus}-{ordinal}",
            "ordinal": ordinal,
            "score": ordinal + more,
            "text_tokens": 1,
            "image_tokens": 2,
            "features": [1],
            "contributions": [0.5],
        }
        for ordinal in range(group.start, group.stop)
    ]
    return pa.Table.from_pylist(rows, SCORE_SCHEMA)


def age(path: Path, seconds: float) -> None:
    """Make everything below a path as old as that, but not the storage's marker."""
    for file in [path, *path.rglob("*")]:
        if file.name != MARKER and not file.is_symlink():
            then = file.stat().st_mtime - seconds
            os.utime(file, (then, then))


def tree(path: Path) -> dict[str, bytes]:
    """All files below a path with their content."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def odd_files(path: Path, *names: bytes) -> None:
    """Empty files below a path whose names need not be text."""
    for name in names:
        file = Path(os.fsdecode(os.fsencode(path) + b"/" + name))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
