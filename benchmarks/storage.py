"""Publishing and reopening an artifact of many empty shards: seconds, memory, requests.

    python benchmarks/storage.py --work DIRECTORY

On a disk and in memory: every shard is a data file and its mark, both synced, then the artifact is
finished; reopening asks first which shards are missing, as a job does that goes on, then whether
all is finished, as every later job does. The peers are scripts without a storage layer: a file and
a JSON mark by plain writes (`peer_publish`) or by writes that survive a loss of power
(`peer_publish_synced`), and a glob that loads all marks (`peer_reopen`). On the disk few shards
tell what syncing costs, since that is nearly all; many are published in memory, where it costs
nothing. On S3 (moto, in another process) the requests are counted. Results go to
`benchmarks/results/storage.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measured import RESULTS, circumstances, spread, store

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from raysae.artifacts import CHECKSUM, Artifact, ArtifactSpec, Publication, ShardPlan  # noqa: E402
from raysae.storage import Directory, open_storage  # noqa: E402

SPEC = ArtifactSpec("benchmark", 1, {})
MIB = 2**20


def publish(artifact: Artifact, plan: ShardPlan) -> None:
    """Publish every shard and finish the artifact."""
    artifact.begin(len(plan))
    for shard in plan:
        files = Publication(artifact.directory)
        with files.writing(f"{shard.name}-{CHECKSUM}.bin") as path:
            path.write_bytes(shard.name.encode())
        artifact.mark_shard(shard.name, files.records, {"rows": 0, "rejected": 0, "rejections": []})


def finish(artifact: Artifact, plan: ShardPlan) -> None:
    """Write the list of shards and the metadata."""
    artifact.finish({"rows": 0}, (), plan)


def reopen_unfinished(artifact: Artifact, plan: ShardPlan) -> None:
    """Find out which shards are missing."""
    assert not artifact.missing(plan).shards


def reopen_finished(artifact: Artifact, _: ShardPlan) -> None:
    """Find out that all of it is there."""
    assert artifact.is_finished()


STEPS: tuple[Callable[[Artifact, ShardPlan], None], ...] = (
    publish,
    reopen_unfinished,
    finish,
    reopen_finished,
)


def peer_publish(directory: Path, shards: int, write: Callable[[Path, bytes], object]) -> None:
    """Write a file and a mark for each shard."""
    directory.mkdir()
    for number in range(shards):
        name = f"shard-{number:05d}"
        write(directory / f"{name}.bin", name.encode())
        mark = {"files": [f"{name}.bin"], "rows": 0, "rejected": 0, "rejections": []}
        write(directory / f"{name}.json", json.dumps(mark).encode())


def write_synced(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a loss of power."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def peer_reopen(directory: Path) -> None:
    """Load all marks and look for their files."""
    marks = [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]
    assert all((directory / mark["files"][0]).exists() for mark in marks)


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Return seconds, and by how much the process' highest memory grew."""
    before, started = _peak_mib(), time.monotonic()
    call()
    seconds = time.monotonic() - started
    return {"seconds": round(seconds, 2), "peak_mib_grew_by": round(_peak_mib() - before, 1)}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_local(work: Path, shards: int) -> dict[str, dict[str, float]]:
    """Time every step once, in this process."""
    root = open_storage(str(work / "storage"))
    artifact, plan = Artifact(root, SPEC), ShardPlan([shards], 1)
    measured = {step.__name__: timed(lambda s=step: s(artifact, plan)) for step in STEPS}  # type: ignore[misc]
    synced, plain = work / "synced", work / "plain"
    measured["peer_publish_synced"] = timed(lambda: peer_publish(synced, shards, write_synced))
    measured["peer_publish"] = timed(lambda: peer_publish(plain, shards, Path.write_bytes))
    measured["peer_reopen"] = timed(lambda: peer_reopen(plain))
    return measured


def measure_s3(shards: int) -> dict[str, dict[str, int]]:
    """Count the requests of every step."""
    from tests.cluster.s3_proxy import s3_proxy
    from tests.cluster.s3_server import s3_server

    counted = {}
    with s3_server("raysae-benchmark") as s3, s3_proxy(s3.endpoint) as proxy:
        os.environ.update(s3.at(proxy.endpoint).environment)
        root: Directory = open_storage("s3://raysae-benchmark/storage")
        counted["open_storage"] = _requests(proxy)
        artifact, plan = Artifact(root, SPEC), ShardPlan([shards], 1)
        for step in STEPS:
            step(artifact, plan)
            counted[step.__name__] = _requests(proxy)
    return counted


def _requests(proxy: object) -> dict[str, int]:
    requests = {kind.name: count for kind, count in proxy.requests.items()}  # type: ignore[attr-defined]
    proxy.reset()  # type: ignore[attr-defined]
    return requests


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=100_000, help="in memory")
    parser.add_argument("--disk-shards", type=int, default=2000)
    parser.add_argument("--s3-shards", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--work", type=Path, required=True, help="a directory on the disk")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--one", action="store_true", help="one local measurement, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps(_in_new_directory(arguments)) + "\n")
        return
    results = {
        **circumstances(),
        "repetitions": arguments.repetitions,
        "disk": _repeated(arguments.disk_shards, arguments.work, arguments.repetitions),
        "memory": _repeated(arguments.shards, arguments.memory, arguments.repetitions),
        "s3_shards": arguments.s3_shards,
        "s3_requests": measure_s3(arguments.s3_shards),
    }
    store(results, RESULTS / "storage.json")
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


def _repeated(shards: int, work: Path, times: int) -> dict[str, Any]:
    """Measure some times, each in a fresh process, and sum up."""
    runs = []
    for _ in range(times):
        runs.append(_run_one(shards, work))
        sys.stdout.write(f"{shards:,} shards in {work}: {runs[-1]}\n")
        sys.stdout.flush()
    steps = {
        step: {name: spread([run[step][name] for run in runs]) for name in runs[0][step]}
        for step in runs[0]
    }
    return {"shards": shards, "steps": steps, "ratios": ratios(runs)}


def ratios(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return how many times a step's seconds are its peer's, run by run."""
    pairs = (
        ("publish", "peer_publish"),
        ("publish", "peer_publish_synced"),
        ("reopen_unfinished", "peer_reopen"),
        ("reopen_finished", "peer_reopen"),
    )
    return {
        f"{step} / {peer}": spread([_ratio(run, step, peer) for run in runs])
        for step, peer in pairs
    }


def _in_new_directory(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure in a directory that is removed afterwards."""
    work = Path(tempfile.mkdtemp(prefix="raysae-benchmark-", dir=arguments.work))
    try:
        return measure_local(work, arguments.shards)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run_one(shards: int, work: Path) -> dict[str, dict[str, float]]:
    """Measure in a fresh process, whose highest memory is nobody else's."""
    command = [sys.executable, __file__, "--one", "--shards", str(shards), "--work", str(work)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _ratio(run: dict[str, dict[str, float]], step: str, peer: str) -> float:
    """Return how many times a step's seconds are the peer's."""
    return round(run[step]["seconds"] / max(run[peer]["seconds"], 0.01), 2)


if __name__ == "__main__":
    main()
