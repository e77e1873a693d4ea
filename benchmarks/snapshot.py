#!/usr/bin/env python3
"""Opening a corpus of many small Parquet files: a first time, again, and beside a plain loop.

    python benchmarks/snapshot.py --work DIRECTORY --files 100000

The files are copies of a few contents, each an inode of its own, in directories of 1,000. Every
measurement runs in a fresh process, in turns, and reports its seconds, those of its processors
(which a busy machine stretches less), and how far its resident memory rose above what it had after
its imports. The peer is a loop that hashes each file and reads
each footer, one after another, and keeps what a snapshot keeps. Results go to
`benchmarks/results/snapshot.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from measured import RESULTS, circumstances, spread, store

from raysae.artifacts import content_id
from raysae.corpora import CorpusSettings, open_corpus

REPOSITORY = Path(__file__).resolve().parents[1]
MIB = 2**20
PER_DIRECTORY = 1000
CONTENTS = 8
KINDS = ("loop", "first", "again")


def write_files(directory: Path, files: int) -> int:
    """Write the corpus if it is not there; return the bytes of all its files."""
    table = open_corpus(CorpusSettings("builtin", max_rows=CONTENTS)).read(0, 0, CONTENTS)
    columns = ["question", "image", "response_1", "response_2", "overall_response"]
    contents = []
    for row in range(CONTENTS):
        sink = pa.BufferOutputStream()
        pq.write_table(table.select(columns).slice(row, 1), sink)
        contents.append(sink.getvalue().to_pybytes())
    for number in range(files):
        path = directory / f"{number // PER_DIRECTORY:04}" / f"{number:06}.parquet"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents[number % CONTENTS])
    return sum(len(contents[number % CONTENTS]) for number in range(files))


def loop(directory: Path) -> dict[str, Any]:
    """Do what a snapshot needs, file by file."""
    files = []
    for path in sorted(directory.rglob("*.parquet")):
        with path.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        with pq.ParquetFile(path) as parquet:
            rows, schema = parquet.metadata.num_rows, parquet.schema_arrow
        name = path.relative_to(directory).as_posix()
        files.append((name, path.stat().st_size, digest, rows, schema))
    return {"rows": sum(file[3] for file in files)}


def snapshot(directory: Path) -> dict[str, Any]:
    """Open the corpus as a job does."""
    corpus = open_corpus(CorpusSettings("align-anything", str(directory)))
    return {"rows": corpus.snapshot.rows, "corpus": corpus}


def measure(kind: str, directory: Path) -> dict[str, Any]:
    """Measure one opening in this process."""
    process = psutil.Process()
    before = process.memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # begin the peak anew
    started, used = time.monotonic(), time.process_time()
    result = loop(directory) if kind == "loop" else snapshot(directory)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - used
    peak = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    measured = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "mib": (peak - before) / MIB,
        "rows": result["rows"],
    }
    if kind == "again":
        measured |= costs_afterwards(result["corpus"])
    return measured


def costs_afterwards(corpus: Any) -> dict[str, float]:
    """Measure what every task and every artifact id takes of a snapshot."""
    started = time.monotonic()
    pickled = pickle.dumps(corpus, protocol=5)
    pickled_at = time.monotonic()
    copy = pickle.loads(pickled)
    loaded_at = time.monotonic()
    copy.snapshot.sample_id(copy.snapshot.rows - 1)
    content_id(corpus.snapshot.to_json())
    return {
        "pickle_mib": len(pickled) / MIB,
        "pickle_seconds": pickled_at - started,
        "unpickle_seconds": loaded_at - pickled_at,
        "id_seconds": time.monotonic() - loaded_at,
    }


def run(kind: str, directory: Path, cache: Path) -> dict[str, Any]:
    """Measure in a fresh process."""
    if kind == "first":
        shutil.rmtree(cache, ignore_errors=True)
    output = subprocess.run(
        [sys.executable, __file__, "--work", str(directory), "--measure", kind],
        env={**os.environ, "RAYSAE_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "2"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout
    return dict(json.loads(output))


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--measure", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.work)))
        return
    corpus_bytes = write_files(arguments.work, arguments.files)
    # The first repetition warms the page cache, for all alike, and does not count.
    taken: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as cache:
        for repetition in range(arguments.repetitions + 1):
            for kind in KINDS:
                measured = run(kind, arguments.work, Path(cache) / "raysae")
                print(f"{repetition} {kind}: {measured}", flush=True)
                if repetition:
                    taken[kind].append(measured)
        cache_bytes = sum(file.stat().st_size for file in Path(cache).rglob("*.arrow"))
    results: dict[str, Any] = {
        **circumstances(),
        "files": arguments.files,
        "corpus_mib": corpus_bytes / MIB,
        "cache_mib": cache_bytes / MIB,
        "repetitions": arguments.repetitions,
    }
    for kind, runs in taken.items():
        results[kind] = {
            name: spread([run[name] for run in runs]) for name in runs[0] if name != "rows"
        }
        for name in ("seconds", "cpu_seconds", "mib"):
            results[kind][f"times_better_in_{name}"] = spread(
                [peer[name] / run[name] for peer, run in zip(taken["loop"], runs, strict=True)]
            )
    print(json.dumps(results, indent=2))
    store(results, RESULTS / "snapshot.json")


if __name__ == "__main__":
    main()
