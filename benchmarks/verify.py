#!/usr/bin/env python3
"""How fast `jobs/verify.py` reads a storage, beside tools that read the same files.

`sha256sum` and `openssl dgst -sha256` compute what it computes, `cat` only reads.

    python benchmarks/verify.py --work DIRECTORY --gigabytes 4

All read with two processes or threads, turn by turn, from the disk (the page cache is dropped
before each turn) and from memory. Results go to `benchmarks/results/verify.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from measured import RESULTS, circumstances, drop_from_page_cache, spread, store

from raysae.artifacts import CHECKSUM, Artifact, ArtifactSpec, Publication, ShardPlan
from raysae.storage import open_storage
from raysae.upkeep.verify import VerifySettings, run_verify

REPOSITORY = Path(__file__).resolve().parents[1]
THREADS = 2
SHARD_BYTES = 256 << 20
PIECE_BYTES = 16 << 20


def write_storage(work: Path, shards: int) -> list[Path]:
    """Write a finished artifact of random bytes, and return its data files."""
    root = open_storage(str(work))
    artifact = Artifact(root, ArtifactSpec("activations", 1, {"benchmark": "verify"}))
    plan = ShardPlan([shards], 1)
    artifact.begin(len(plan))
    for shard in plan:
        publication = Publication(artifact.directory)
        with publication.writing(f"{shard.name}-{CHECKSUM}.arrow") as local, local.open("wb") as f:
            for _ in range(SHARD_BYTES // PIECE_BYTES):
                f.write(os.urandom(PIECE_BYTES))
        artifact.mark_shard(
            shard.name, publication.records, {"rows": 1, "rejected": 0, "rejections": []}
        )
    artifact.finish({}, shards=plan)
    return sorted((work / artifact.name).glob("*.arrow"))


def readers(work: Path, files: list[Path]) -> dict[str, Callable[[], None]]:
    """Return the ways to read all files."""

    def verify() -> None:
        with redirect_stdout(StringIO()):
            run_verify(VerifySettings(str(work), threads=THREADS))

    def each(*command: str) -> Callable[[], None]:
        names = "\0".join(map(str, files)).encode()
        arguments = ["xargs", "-0", f"-P{THREADS}", "-n1", *command]
        return lambda: (
            subprocess.run(arguments, input=names, stdout=subprocess.DEVNULL, check=True) and None
        )

    return {
        "verify": verify,
        "openssl": each("openssl", "dgst", "-sha256"),
        "sha256sum": each("sha256sum"),
        "cat": each("cat"),
    }


def measure(work: Path, files: list[Path], turns: int, *, cold: bool) -> dict[str, object]:
    """Let all read turn by turn; return bytes per second, and ratios within each turn."""
    size = sum(path.stat().st_size for path in files)
    speeds: dict[str, list[float]] = {}
    for turn in range(turns + 1):
        for name, read in readers(work, files).items():
            if cold:
                drop_from_page_cache(files)
            started = time.perf_counter()
            read()
            if turn:  # the first turn warms up
                speeds.setdefault(name, []).append(size / (time.perf_counter() - started) / 1e9)
    ratios = {
        f"verify / {peer}": spread(
            [a / b for a, b in zip(speeds["verify"], speeds[peer], strict=True)]
        )
        for peer in speeds
        if peer != "verify"
    }
    return {"gb_per_s": {name: spread(v) for name, v in speeds.items()}, **ratios}


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a directory on the disk to read")
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    work = options.work / "verify-benchmark"
    files = write_storage(work, max(THREADS, round(options.gigabytes * 1e9 / SHARD_BYTES)))
    try:
        results = {
            **circumstances(),
            "threads": THREADS,
            "files": len(files),
            "bytes": sum(path.stat().st_size for path in files),
            "turns": options.turns,
            "from_disk": measure(work, files, options.turns, cold=True),
            "from_memory": measure(work, files, options.turns, cold=False),
        }
    finally:
        shutil.rmtree(work)
    store(results, RESULTS / "verify.json")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
