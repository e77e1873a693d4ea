"""Scores to subset: the kept rows of the corpus, in the source's schema."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysae.corpora import Corpus
from raysae.scoring import select
from raysae.scoring.table import ScoreTable
from raysae.stages.chain import Chain
from raysae.stages.live_scores import score_marks
from raysae.stages.result import StageResult, rejection_reasons, sum_counts
from raysae.storage import put_file, temporary_sibling

DATA_DIRECTORY = "data"
"""Only Parquet lies here, so that `datasets.load_dataset(<subset>/data)` finds nothing else."""

KEPT_FILE = "kept.parquet"
ROWS_PER_READ = 256


def run_select(chain: Chain) -> StageResult:
    """Keep the samples that the selection settings ask for.

    Raises:
        DataError: There is no scored sample, or none within the limits.
    """
    artifact, settings = chain.subset, chain.settings.select
    started = time.monotonic()
    artifact.begin()
    shards = chain.shards(chain.corpus)
    scores = ScoreTable(chain.root).read(
        (chain.row_group(shard, settings.scorer) for shard in shards),
        ("sample_id", "ordinal", "score"),
    )
    selection = select(scores, settings)
    kept = selection.kept["ordinal"].to_numpy()
    files = _write_rows(chain.corpus, kept, artifact.directory / DATA_DIRECTORY)
    temporary = temporary_sibling(artifact.directory / KEPT_FILE)
    pq.write_table(selection.kept, temporary)
    put_file(temporary, artifact.directory / KEPT_FILE)
    marks = score_marks(chain)
    counts = sum_counts(marks)
    artifact.finish(
        {
            "rows": len(kept),
            "scored": selection.rows,
            "rejected": counts["rejected"],
            "rejections": rejection_reasons(marks),
            "duplicates": selection.duplicates,
            "unscored": selection.unscored,
            "cutoff": selection.cutoff,
            "files": files,
            "seconds": time.monotonic() - started,
        }
    )
    sys.stdout.write(
        f"select: kept {len(kept):,} of {selection.rows:,} rows by {settings.scorer}\n"
    )
    return StageResult(len(kept), counts["rejected"], resumed=False)


def _write_rows(corpus: Corpus, kept: np.ndarray, directory: Path) -> list[str]:
    """Write the kept rows, one file for each of the corpus that has any, a few rows at a time."""
    parts = []
    for index, rows in enumerate(corpus.snapshot.file_rows):
        first = corpus.snapshot.first_ordinal(index)
        in_file = kept[(kept >= first) & (kept < first + rows)] - first
        if len(in_file):
            parts.append((index, in_file))
    names = []
    for number, (index, in_file) in enumerate(parts):
        names.append(f"train-{number:05d}-of-{len(parts):05d}.parquet")
        temporary = temporary_sibling(directory / names[-1])
        with pq.ParquetWriter(temporary, corpus.schema, compression="zstd") as writer:
            start = 0
            for batch in corpus.batches(index, rows=ROWS_PER_READ):
                stop = start + batch.num_rows
                wanted = in_file[(in_file >= start) & (in_file < stop)] - start
                if len(wanted):
                    writer.write_batch(batch.take(pa.array(wanted)))
                start = stop
        put_file(temporary, directory / names[-1])
    return names
