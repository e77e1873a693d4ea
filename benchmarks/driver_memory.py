#!/usr/bin/env python3
"""What a corpus of more rows costs the process that drives a job: memory and seconds.

    python benchmarks/driver_memory.py --work DIRECTORY --rows 10000 100000 1000000

Rows are short questions with two answers, in Parquet and as JSON lines. Each measurement runs in a
fresh process with a Ray of its own: the corpus is opened, cut into shards of 256 rows, and each
shard goes through the actor pool that all stages use, with an actor that only counts its rows. The
driver's resident memory is taken above what it had once Ray ran: its peak, and ten values evenly
spaced over the time in which shards are worked on. Results go to
`benchmarks/results/driver_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from measured import RESULTS, circumstances, store

from raysae.artifacts import ShardPlan, ShardSpec
from raysae.corpora import CorpusSettings, open_corpus
from raysae.corpora.columns import ColumnMap
from raysae.models import ModelSettings
from raysae.sample import Rejection, Sample
from raysae.settings import RunSettings
from raysae.storage import storage_at

MIB = 2**20
ROWS_PER_SHARD = 256
COLUMNS = ColumnMap(question="question", chosen="better", rejected="worse")


def write_corpus(directory: Path, rows: int, kind: str) -> Path:
    """Write the corpus if it is not there, as one file."""
    path = directory / f"{rows}.{kind}"
    if path.exists():
        return path
    directory.mkdir(parents=True, exist_ok=True)
    values = (
        {"question": f"What is {n}?", "better": f"It is {n}.", "worse": "Nobody knows."}
        for n in range(rows)
    )
    if kind == "jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(value) + "\n" for value in values)
    else:
        pq.write_table(pa.Table.from_pylist(list(values)), path, row_group_size=1000)
    return path


class CountingWorker:
    """Counts a shard's samples."""

    def finished(self, shard: ShardSpec) -> None:
        """Nothing was done before."""

    def work(
        self, shard: ShardSpec, samples: Sequence[Sample | Rejection]
    ) -> Callable[[], dict[str, Any]]:
        """Count."""
        del shard
        usable = sum(isinstance(sample, Sample) for sample in samples)
        return lambda: {"rows": usable, "rejected": len(samples) - usable}


@contextmanager
def resident_sampled(process: psutil.Process) -> Iterator[list[int]]:
    """Take the process' resident bytes twice a second."""
    taken: list[int] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.5):
            taken.append(process.memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield taken
    finally:
        ended.set()
        thread.join()


def measure(path: Path) -> dict[str, Any]:
    """Drive a job over a corpus in this process."""
    from raysae.stages._pool import ShardTask, run_shards
    from raysae.stages.connection import connect, disconnect

    connect()
    process = psutil.Process()
    before = process.memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # begin the peak anew
    started = time.monotonic()
    corpus = open_corpus(CorpusSettings("generic", str(path), columns=COLUMNS))
    opened = time.monotonic()
    shards = ShardPlan(corpus.snapshot.file_rows, ROWS_PER_SHARD)
    with tempfile.TemporaryDirectory() as scratch, resident_sampled(process) as resident:
        counts = run_shards(
            "count",
            corpus,
            [ShardTask(shard) for shard in shards],
            worker_class=CountingWorker,
            worker_arguments={},
            attempts=storage_at(scratch) / "attempts",
            model=ModelSettings(),
            run=RunSettings(),
        )
    seconds = time.monotonic() - opened
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    disconnect()
    return {
        "rows": counts["rows"],
        "shards": len(shards),
        "mib": (peak - before) / MIB,
        "mib_over_time": [
            round((resident[tenth * len(resident) // 10] - before) / MIB, 1) for tenth in range(10)
        ],
        "open_seconds": opened - started,
        "shard_milliseconds": 1000 * seconds / len(shards),
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(f"MEASURED {json.dumps(measure(arguments.measure))}")
        return
    results: dict[str, Any] = {
        **circumstances(),
        "rows_per_shard": ROWS_PER_SHARD,
    }
    for kind in ("parquet", "jsonl"):
        for rows in arguments.rows:
            path = write_corpus(arguments.work, rows, kind)
            output = subprocess.run(
                [sys.executable, __file__, "--work", str(arguments.work), "--measure", str(path)],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
                env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            ).stdout
            (line,) = (one for one in output.splitlines() if one.startswith("MEASURED "))
            results[f"{kind}_{rows}"] = json.loads(line.removeprefix("MEASURED "))
            print(kind, rows, results[f"{kind}_{rows}"], flush=True)
    store(results, RESULTS / "driver_memory.json")


if __name__ == "__main__":
    main()
