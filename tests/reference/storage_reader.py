"""A reader of storages by docs/storage.md, with the standard library and pyarrow alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq


@dataclass(frozen=True)
class FoundArtifact:
    """A finished artifact: every file was read, and none is in doubt."""

    kind: str
    id: str
    spec: dict[str, Any]
    metadata: dict[str, Any]
    marks: dict[str, dict[str, Any]]
    files: dict[str, bytes]


def read_artifact(directory: Path) -> FoundArtifact | None:
    """Read an artifact; None if it is not finished."""
    if not (directory / "metadata.json").is_file():
        return None
    metadata = json.loads((directory / "metadata.json").read_text())
    listed = list(metadata["files"])
    marks = {}
    for file in metadata["files"]:
        if file["name"].startswith("shards-"):
            rows = pq.read_table(directory / file["name"]).to_pylist()
            listed += [{name: row[name] for name in ("name", "size", "sha256")} for row in rows]
            for shard in dict.fromkeys(row["shard"] for row in rows):
                marks[shard] = json.loads((directory / f"{shard}.done.json").read_text())
    files = {}
    for file in listed:
        data = (directory / file["name"]).read_bytes()
        assert len(data) == file["size"], file
        assert hashlib.sha256(data).hexdigest() == file["sha256"], file
        files[file["name"]] = data
    spec = metadata["spec"]
    assert json.loads((directory / "spec.json").read_text())["spec"] == spec
    assert metadata["id"] == directory.name == identity(spec)
    assert spec["kind"] == directory.parent.name
    return FoundArtifact(directory.parent.name, directory.name, spec, metadata, marks, files)


def identity(value: Any) -> str:
    """Return the id of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def read_scores(storage: Path, series: str = "") -> pa.Table:
    """Read a series of scores, by the manifest with the highest number; the newest by default."""
    table = storage / "scores"
    manifest = max((table / "manifests").glob("*.parquet"))
    about = json.loads(pq.read_schema(manifest).metadata[b"raysae_score_manifest"])
    assert about["number"] == int(manifest.stem)
    live = pq.read_table(manifest).to_pylist()
    newest = max(live, key=lambda row: row["published"])["series"]
    live = [row for row in live if row["series"] == (series or newest)]
    for row in live:
        data = (table / row["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["size"], row["sha256"])
        key = [row[name] for name in ("corpus", "scorer", "lineage", "start", "stop")]
        assert Path(row["path"]).name.startswith(identity(key))
    files = [str(table / row["path"]) for row in live]
    partitioning = pyarrow.dataset.HivePartitioning(
        pa.schema([("corpus", pa.string()), ("scorer", pa.string())])
    )
    return pyarrow.dataset.dataset(
        files, partitioning=partitioning, partition_base_dir=str(table / "data")
    ).to_table()


def page_tables(page: Path) -> dict[str, list[tuple[str, str]]]:
    """Return (name, type) of the rows of a page's tables with types, by the heading before them."""
    tables: dict[str, list[tuple[str, str]]] = {}
    heading = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| column") and cells[1] == "type":
            current = tables.setdefault(f"{heading}: {cells[0]}", [])
        elif line.startswith("| `") and len(cells) == 3 and tables:
            current.append((cells[0].strip("`"), cells[1]))
    return tables
