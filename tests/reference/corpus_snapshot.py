"""A corpus' snapshot by a loop over its files: each hashed, each opened."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def snapshot_json(name: str, directory: Path, max_rows: int = 0) -> dict[str, Any]:
    """Return what `CorpusSnapshot.to_json` says of a directory."""
    paths = {
        path.relative_to(directory).as_posix(): path
        for path in directory.rglob("*.parquet")
        if path.is_file() and not any(part[0] in "._" for part in path.relative_to(directory).parts)
    }
    files: list[dict[str, Any]] = []
    for file in sorted(paths):
        data = paths[file].read_bytes()
        rows = pq.ParquetFile(paths[file]).metadata.num_rows
        before = sum(other["rows"] for other in files)
        if max_rows:
            rows = min(rows, max_rows - before)
        digest = hashlib.sha256(data).hexdigest()
        files.append({"name": file, "size": len(data), "fingerprint": digest, "rows": rows})
        if max_rows and before + rows == max_rows:
            break
    return {"name": name, "files": files}
