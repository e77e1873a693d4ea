"""Rows spread evenly over a corpus: for whoever looks at a few of them before anyone pays."""

from __future__ import annotations

from collections.abc import Iterator

from raysae.artifacts import ShardSpec
from raysae.corpora import CorpusSnapshot


def spread_runs(snapshot: CorpusSnapshot, wanted: int, run_rows: int) -> Iterator[ShardSpec]:
    """Yield runs of consecutive rows, spread evenly: a row alone costs a Parquet file's row group.

    There are n = ⌈wanted / run_rows⌉ runs. Before the i-th lie ⌊i · wanted / n⌋ rows of other runs
    and ⌊i · (rows − wanted) / n⌋ that are left out. The end of a file cuts a run in two.

    Args:
        snapshot: The corpus.
        wanted: Rows together, or all that there are if these are fewer; 0 means all.
        run_rows: Rows of a run, at most.
    """
    rows = snapshot.rows
    wanted = min(wanted or rows, rows)
    runs = -(-wanted // run_rows)
    for run in range(runs):
        before, after = run * wanted // runs, (run + 1) * wanted // runs
        begin = before + run * (rows - wanted) // runs
        end = begin + after - before
        while begin < end:
            file_index, start = snapshot.locate(begin)
            stop = min(start + end - begin, snapshot.files[file_index].rows)
            yield ShardSpec(f"rows-{begin}", file_index, start, stop, begin)
            begin += stop - start
