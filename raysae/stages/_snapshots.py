"""The list of a corpus' files, written beside what is made from them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts import Artifact, Publication
from raysae.corpora import CorpusSnapshot

SNAPSHOT_FILE = "files.parquet"

SNAPSHOT_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
    ]
)
"""One row per file, in the order in which rows are numbered; `rows` are those that are used."""


def record_snapshot(artifact: Artifact, snapshot: CorpusSnapshot) -> None:
    """Write what a corpus consisted of, unless it is written already.

    Args:
        artifact: `Chain.snapshot` or `Chain.sae_snapshot`.
        snapshot: The corpus' files.
    """
    if artifact.is_finished():
        return
    artifact.begin()
    columns = {
        name: [getattr(file, name) for file in snapshot.files] for name in SNAPSHOT_SCHEMA.names
    }
    files = Publication(artifact.directory)
    with files.writing(SNAPSHOT_FILE) as path:
        pq.write_table(pa.table(columns, schema=SNAPSHOT_SCHEMA), path, compression="zstd")
    counts = {"corpus": snapshot.name, "rows": snapshot.rows, "rejected": 0, "rejections": {}}
    artifact.finish({**counts, "corpus_files": len(snapshot.files)}, files.records)
