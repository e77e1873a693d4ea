#!/usr/bin/env python3
"""The score table with 100,000 row groups: seconds, memory, and requests to an object store.

    python benchmarks/score_table.py --work DIRECTORY

Files and marks are laid down beforehand, as the stage `score` would have left them; each operation
then runs in a process of its own, whose resident memory above that of its imports is what counts.
Requests are counted by an S3 in this process. Beside it the peers, on the same files: one JSON
manifest that is rewritten whole, and no manifest at all, but every footer below the data directory.
Results go to `benchmarks/results/score_table.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from measured import RESULTS, circumstances, store

from raysae.artifacts import CHECKSUM, SCORE_SCHEMA, RowGroup, ScoreTable, file_sha256
from raysae.artifacts.marks import mark_name
from raysae.storage import storage_at, to_json

REPOSITORY = Path(__file__).resolve().parents[1]
GROUPS = 100_000
LINEAGES = 40
"""Ten files by four scorers."""
ROWS = 300
WRITTEN = 100
S3_SIZES = (1_000, 10_000)
MIB = 2**20
JSON_PEER = "live.json"
SERIES = "series"

Entry = dict[str, Any]


def row_groups(count: int, shift: int = 0) -> list[RowGroup]:
    """Return row groups of `LINEAGES` files and scorers; shifted ones overlap two others each."""
    each = count // LINEAGES
    return [
        RowGroup("corpus", f"scorer-{n % 4}", f"{n:024x}", ROWS * k + shift, ROWS * (k + 1) + shift)
        for n in range(LINEAGES)
        for k in range(each)
    ]


def replacing(count: int) -> list[RowGroup]:
    """Return row groups that take the place of the first tenth of each lineage's."""
    return row_groups(count // 10, shift=ROWS // 2)


def recut(count: int) -> list[RowGroup]:
    """Return all row groups, with those in the place of the first tenth."""
    first = ROWS * (count // 10 // LINEAGES + 1)
    return replacing(count) + [group for group in row_groups(count) if group.start >= first]


def scores() -> pa.Table:
    """Return one row group's scores."""
    return pa.Table.from_pylist(
        [
            {
                "sample_id": f"sample-{row}",
                "ordinal": row,
                "score": 1 / (row + 1),
                "text_tokens": 100,
                "image_tokens": 2928,
                "features": list(range(row, row + 8)),
                "contributions": [1 / (row + k + 1) for k in range(8)],
            }
            for row in range(ROWS)
        ],
        SCORE_SCHEMA,
    )


def laid_down(groups: Sequence[RowGroup], template: Path) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of what `score` leaves: every data file has the same rows."""
    data, sha256 = template.read_bytes(), file_sha256(template)
    for group in groups:
        name = group.file_pattern.replace(CHECKSUM, sha256[:16])
        file = {"name": name, "size": len(data), "sha256": sha256}
        mark = {**asdict(group), "rows": ROWS, "rejected": 0, "rejections": [], "files": [file]}
        yield name, data
        yield mark_name(group.shard), to_json(mark)


# -- operations, each in a process of its own


def write(root: Path, count: int) -> int:
    """Score nothing, but write as the stage does: data file, then mark, synced."""
    table, rows = ScoreTable(storage_at(str(root / "written"))), scores()
    for group in row_groups(count)[:WRITTEN]:
        table.write(group, rows, {"rejected": 0, "rejections": []})
    return WRITTEN


def publish(root: Path, count: int) -> int:
    """Make all row groups live."""
    return ScoreTable(storage_at(str(root))).publish(row_groups(count), SERIES)


def open_latest(root: Path, count: int) -> int:
    """Name all live files, for any reader."""
    del count
    return len(ScoreTable(storage_at(str(root))).live_files())


def missing(root: Path, count: int) -> int:
    """Find out that nothing is left to be scored."""
    return len(ScoreTable(storage_at(str(root))).missing(row_groups(count)).groups)


def replace_a_tenth(root: Path, count: int) -> int:
    """Publish the series again, a tenth of it cut otherwise."""
    return ScoreTable(storage_at(str(root))).publish(recut(count), SERIES)


def json_publish(root: Path, count: int) -> int:
    """The peer: marks are read one by one, and all of it is written as JSON."""
    entries = [_json_entry(root, group) for group in row_groups(count)]
    (root / JSON_PEER).write_text(json.dumps({"row_groups": entries}, indent=2))
    return len(entries)


def json_open(root: Path, count: int) -> int:
    """The peer names all live files."""
    del count
    entries = json.loads((root / JSON_PEER).read_text())["row_groups"]
    return len([str(root / "scores" / entry["path"]) for entry in entries])


def json_replace_a_tenth(root: Path, count: int) -> int:
    """The peer compares every pair of a lineage's row ranges, as this table did before."""
    entries = json.loads((root / JSON_PEER).read_text())["row_groups"]
    new = replacing(count)
    of_lineage = {k: list(v) for k, v in groupby(new, key=lambda group: group.lineage)}
    kept = [
        entry
        for entry in entries
        if not any(
            entry["start"] < group.stop and group.start < entry["stop"]
            for group in of_lineage.get(entry["lineage"], ())
        )
    ]
    kept += [_json_entry(root, group) for group in new]
    kept.sort(key=lambda e: (e["corpus"], e["scorer"], e["lineage"], e["start"]))
    (root / f"new-{JSON_PEER}").write_text(json.dumps({"row_groups": kept}, indent=2))
    return len(kept)


def footers_open(root: Path, count: int) -> int:
    """The peer without a manifest: every file below the directory, whether it is live or not."""
    del count
    files = (root / "scores" / "data").rglob("*.parquet")
    return sum(pq.read_metadata(path).num_rows for path in files)


def _json_entry(root: Path, group: RowGroup) -> Entry:
    mark = json.loads((root / "scores" / mark_name(group.shard)).read_bytes())
    (file,) = mark["files"]
    assert (root / "scores" / file["name"]).stat().st_size == file["size"]
    return {
        **asdict(group),
        "path": file["name"],
        "rows": mark["rows"],
        "size": file["size"],
        "sha256": file["sha256"],
    }


OPERATIONS: dict[str, Callable[[Path, int], int]] = {
    "write": write,
    "publish": publish,
    "open": open_latest,
    "missing": missing,
    "publish again": publish,
    "replace a tenth": replace_a_tenth,
    "json publish": json_publish,
    "json open": json_open,
    "json replace a tenth": json_replace_a_tenth,
    "footers open": footers_open,
}


def measured(operation: str, root: Path, count: int) -> dict[str, float]:
    """Run one operation in a process of its own."""
    command = [sys.executable, __file__, "--work", str(root), "--groups", str(count)]
    done = subprocess.run([*command, "--operation", operation], check=True, capture_output=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def run_operation(operation: str, root: Path, count: int) -> None:
    """Be that process: print seconds and memory."""
    before = _resident_kib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    started, cpu = time.perf_counter(), time.process_time()
    answer = OPERATIONS[operation](root, count)
    print(
        json.dumps(
            {
                "answer": answer,
                "seconds": round(time.perf_counter() - started, 3),
                "cpu_seconds": round(time.process_time() - cpu, 3),
                "peak_mib": round((_resident_kib("VmHWM") - before) / 1024),
            }
        )
    )


def _resident_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def local(work: Path, count: int) -> dict[str, Any]:
    """Measure everything on this machine's file system."""
    template = work / "template.parquet"
    pq.write_table(scores(), template, compression="zstd")
    root = work / "storage"
    shutil.rmtree(root, ignore_errors=True)
    for name, data in laid_down(row_groups(count) + replacing(count), template):
        path = root / "scores" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found: dict[str, Any] = {}
    for operation in OPERATIONS:
        found[operation] = measured(operation, root, count)
        print(f"{count:,} row groups, {operation}: {found[operation]}", flush=True)
    manifests = sorted((root / "scores/manifests").iterdir())
    found["manifest_mib"] = round(manifests[0].stat().st_size / MIB, 2)
    found["json_mib"] = round((root / JSON_PEER).stat().st_size / MIB, 2)
    shutil.rmtree(root)
    return found


def s3_requests(work: Path, count: int) -> dict[str, Any]:
    """Count the requests of each operation on an S3 in this process."""
    from tests.counted_s3 import BUCKET, counted_s3

    found: dict[str, Any] = {}
    with counted_s3() as s3:
        for name, data in laid_down(
            row_groups(count) + replacing(count), work / "template.parquet"
        ):
            s3.put(f"{count}/scores/{name}", data)
        table = ScoreTable(s3.root(str(count)))
        calls: dict[str, Callable[[], object]] = {
            "publish": lambda: table.publish(row_groups(count), SERIES),
            "open": table.live_files,
            "missing": lambda: table.missing(row_groups(count)),
            "publish again": lambda: table.publish(row_groups(count), SERIES),
            "replace a tenth": lambda: table.publish(recut(count), SERIES),
        }
        if count <= S3_SIZES[0]:
            calls["footers open"] = lambda: [
                pq.read_metadata(s3.filesystem.open(path))
                for path in s3.filesystem.find(f"{BUCKET}/{count}/scores/data")
            ]
        for operation, call in calls.items():
            s3.requests.clear()
            call()
            found[operation] = {**s3.requests, "all": sum(s3.requests.values())}
            print(f"{count:,} row groups on S3, {operation}: {found[operation]}", flush=True)
    return found


def main() -> None:
    """Measure, print and store; or be one operation's process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--groups", type=int, default=GROUPS)
    parser.add_argument("--operation", choices=list(OPERATIONS))
    arguments = parser.parse_args()
    if arguments.operation:
        run_operation(arguments.operation, arguments.work, arguments.groups)
        return
    sys.path.insert(0, str(REPOSITORY))
    arguments.work.mkdir(parents=True, exist_ok=True)
    result = {
        **circumstances(),
        "row_groups": arguments.groups,
        "lineages": LINEAGES,
        "written_row_groups": WRITTEN,
        "local": local(arguments.work, arguments.groups),
        "s3_requests": {str(count): s3_requests(arguments.work, count) for count in S3_SIZES},
    }
    store(result, RESULTS / "score_table.json")
    print(f"wrote {RESULTS / 'score_table.json'}")


if __name__ == "__main__":
    main()
