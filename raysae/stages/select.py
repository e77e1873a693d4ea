"""Scores to subset: the kept rows of the corpus, in the source's schema."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raysae.artifacts import Publication, ScoreTable
from raysae.corpora import Corpus
from raysae.scoring import select
from raysae.stages._outcome import finish_once
from raysae.stages.chain import Chain
from raysae.stages.live_scores import row_groups, score_marks
from raysae.stages.result import ShardTotals, StageResult

DATA_DIRECTORY = "data"
"""Only Parquet lies here, so that `datasets.load_dataset(<subset>/data)` finds nothing else."""

KEPT_FILE = "kept.parquet"
ROWS_PER_READ = 256


def run_select(chain: Chain) -> StageResult:
    """Keep the samples that the selection settings ask for.

    Raises:
        DataError: There is no scored sample, or none within the limits.
    """
    artifact, scorer = chain.subset, chain.settings.select.scorer
    artifact.begin()
    metadata = finish_once(artifact, lambda files: _write_subset(chain, files))
    sys.stdout.write(
        f"select: kept {metadata['rows']:,} of {metadata['scored']:,} rows by {scorer}\n"
    )
    return StageResult(metadata["rows"], metadata["rejected"], resumed=False)


def _write_subset(chain: Chain, files: Publication) -> dict[str, Any]:
    """Select, write the subset's files, and return what its metadata tells."""
    settings, started = chain.settings.select, time.monotonic()
    scores = ScoreTable(chain.root).read(
        row_groups(chain, settings.scorer), ("sample_id", "ordinal", "score")
    )
    selection = select(scores, settings)
    kept = selection.kept["ordinal"].to_numpy()
    names = _write_rows(chain.corpus, kept, files)
    with files.writing(KEPT_FILE) as path:
        pq.write_table(selection.kept, path)
    totals = ShardTotals.of(score_marks(chain))
    return {
        "series": chain.series,
        "rows": len(kept),
        "scored": selection.rows,
        "rejected": totals.counts["rejected"],
        "rejections": dict(totals.reasons),
        "duplicates": selection.duplicates,
        "unscored": selection.unscored,
        "cutoff": selection.cutoff,
        "data_files": names,
        "seconds": time.monotonic() - started,
    }


def _write_rows(corpus: Corpus, kept: np.ndarray, files: Publication) -> list[str]:
    """Write the kept rows, one file for each of the corpus that has any, a few rows at a time."""
    parts = []
    for index, rows in enumerate(corpus.snapshot.file_rows):
        first = corpus.snapshot.first_ordinal(index)
        in_file = _rows_between(kept, first, first + rows)
        if len(in_file):
            parts.append((index, in_file))
    names = []
    for number, (index, in_file) in enumerate(parts):
        names.append(f"{DATA_DIRECTORY}/train-{number:05d}-of-{len(parts):05d}.parquet")
        with files.writing(names[-1]) as path:
            _write_part(corpus, index, in_file, path)
    return names


def _rows_between(kept: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return the ascending row numbers that lie in a range, counted from its start.

    Found by bisection: a mask of all rows for each of a corpus' files would be quadratic.
    """
    low, high = np.searchsorted(kept, (start, stop))
    return kept[low:high] - start


def _write_part(corpus: Corpus, file_index: int, kept: np.ndarray, path: Path) -> None:
    """Write some rows of one of the corpus' files."""
    with pq.ParquetWriter(path, corpus.schema, compression="zstd") as writer:
        start = 0
        for batch in corpus.batches(file_index, rows=ROWS_PER_READ):
            stop = start + batch.num_rows
            wanted = _rows_between(kept, start, stop)
            if len(wanted):
                writer.write_batch(batch.take(pa.array(wanted)))
            start = stop
