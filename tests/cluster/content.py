"""What is in a storage, read file by file without raysae's stages, so that two can be compared."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from raysae.corpora import CorpusSettings, open_corpus
from tests.reference.storage_reader import read_scores


@dataclass(frozen=True)
class Storage:
    """A storage directory that holds one artifact of each kind, or will."""

    root: Path

    def artifact(self, kind: str) -> Path:
        """Return the directory of the only artifact of a kind."""
        (directory,) = (self.root / kind).iterdir()
        return directory

    def sibling(self, other: Storage, kind: str) -> Path:
        """Return where another storage's artifact would lie here: equal settings, equal id."""
        return self.root / kind / other.artifact(kind).name

    def take(self, other: Storage, *kinds: str) -> None:
        """Copy finished artifacts, or the score table, from another storage."""
        for kind in kinds:
            shutil.copytree(other.root / kind, self.root / kind)

    def is_finished(self, kind: str) -> bool:
        """Whether the artifact of a kind says so."""
        return (self.artifact(kind) / "metadata.json").exists()

    def score_marks(self) -> list[Path]:
        """Return the done marks of the score table's row groups."""
        return sorted((self.root / "scores" / "marks").glob("*.done.json"))


def marks(artifact: Path) -> list[Path]:
    """Return the done marks of an artifact's shards."""
    return sorted(artifact.glob("*.done.json"))


def finished_files(artifact: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of writing of every marked file and of its mark."""
    names = [mark.name for mark in marks(artifact)]
    names += [file["name"] for mark in marks(artifact) for file in read(mark)["files"]]
    return stamps(artifact / name for name in names)


def latest_step(artifact: Path) -> int:
    """Return the step of a training's newest checkpoint, 0 before there is one."""
    names = (path.stem for path in artifact.glob("work/checkpoints/step-*.json"))
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def stamps(paths: Iterable[Path]) -> dict[str, tuple[int, int]]:
    """Return inode and time of writing of files, by path: shards of two stages have one name."""
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def source_ids(name: str, rows: int) -> list[str]:
    """Return the ids of a corpus' first rows."""
    corpus = open_corpus(CorpusSettings(name, max_rows=rows))
    return sorted(corpus.snapshot.sample_id(ordinal) for ordinal in range(rows))


def cached_ids(artifact: Path) -> list[str]:
    """Return the sample ids of a cache, each as often as it occurs."""
    return sorted(
        sample_id
        for mark in marks(artifact)
        for table in [_stream(artifact / read(mark)["cached"]["samples"])]
        for sample_id in table["sample_id"].to_pylist()
    )


def cached_tokens(artifact: Path) -> dict[str, str]:
    """Return a checksum of every column of every shard that a cache's metadata lists."""
    return {
        name.split("-")[1]: _checksum(_stream(artifact / name))
        for name in read(artifact / "metadata.json")["data_files"]
    }


def dataset_files(artifact: Path) -> list[str]:
    """Return the token files that `datasets.load_from_disk` would open."""
    return [file["filename"] for file in read(artifact / "state.json")["_data_files"]]


def live_scores(storage: Storage) -> dict[tuple[str, str], str]:
    """Return (scorer, sample id) → row, as text in which NaN equals NaN, by the latest manifest.

    No pair is there twice.
    """
    rows = read_scores(storage.root).to_pylist()
    found = [((row["scorer"], row["sample_id"]), json.dumps(row)) for row in rows]
    twice = [key for key, times in Counter(key for key, _ in found).items() if times > 1]
    assert not twice, f"scored more than once: {twice[:5]}"
    return dict(found)


def scored_ids(scores: dict[tuple[str, str], str]) -> dict[str, list[str]]:
    """Return the ids that each scorer scored."""
    ids: dict[str, list[str]] = {}
    for scorer, sample_id in scores:
        ids.setdefault(scorer, []).append(sample_id)
    return {scorer: sorted(found) for scorer, found in ids.items()}


def subset(artifact: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the kept samples with their scores, and a checksum of the rows written."""
    kept = pq.read_table(artifact / "kept.parquet").to_pylist()
    rows = [pq.read_table(file) for file in sorted((artifact / "data").glob("*.parquet"))]
    return kept, _checksum(pa.concat_tables(rows))


def sae_tensors(artifact: Path) -> dict[str, np.ndarray]:
    """Return an SAE's weights."""
    return dict(load_file(artifact / "sae_weights.safetensors"))


def history(artifact: Path) -> list[dict[str, float]]:
    """Return an SAE's training curve."""
    return list(read(artifact / "history.json")["points"])


def read(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    value = json.loads(path.read_bytes())
    assert isinstance(value, dict)
    return value


def _stream(path: Path) -> pa.Table:
    with pa.ipc.open_stream(path) as stream:
        return stream.read_all()


def _checksum(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for name in table.column_names:
        sink = pa.BufferOutputStream()
        column = table.select([name]).combine_chunks()
        with pa.ipc.new_stream(sink, column.schema) as writer:
            writer.write_table(column)
        digest.update(sink.getvalue())
    return digest.hexdigest()
