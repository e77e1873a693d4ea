#!/usr/bin/env python3
"""The whole chain on the published 7B shapes: time and peak memory beside what `--plan` predicts.

    python benchmarks/real_shapes.py write CHECKPOINT --blocks 2
    python benchmarks/real_chain.py CHECKPOINT --work DIRECTORY --rows 16
    python benchmarks/real_chain.py CHECKPOINT --work DIRECTORY --rows 16 --s3

The corpus is made of the built-in pictures, enlarged to 672 pixels a side (2,928 image tokens
each). Each job runs as a user would start it, in a process of its own; the resident memory of Ray's
worker processes is sampled while it runs. Results go to `benchmarks/results/real_chain.json`.

`--jobs cache` runs that job alone; results go to `real_cache.json`, with `--layers 0 1` to
`real_cache_layers.json`. `--streamed` runs the training alone, without a cache; results go to
`real_stream.json`.

With `--s3` the storage is in a bucket of moto's server on this machine, behind the tests' proxy,
which counts the requests; where a run without it left its storage in the same directory, the
artifacts' files are compared by their checksums. Results go to `real_chain_s3.json`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from measured import RESULTS, circumstances, store
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from raysae.corpora import CorpusSettings, open_corpus  # noqa: E402
from raysae.storage import Directory, storage_at  # noqa: E402
from tests.cluster.s3_proxy import s3_proxy  # noqa: E402
from tests.cluster.s3_server import s3_server  # noqa: E402

SIDE = 672
GIB = 2**30
WORKERS = ("ray::MapWorker", "ray::RayTrainWorker", "ray::merge_states")
PLAN = re.compile(
    r"^plan: (\w+) +\S+ operations, ([\d.,]+) worker-hours, .*, ([\d.,]+) GiB of memory a worker, "
    r"([\d.,]+) GiB on disk$",
    re.MULTILINE,
)


@dataclass
class Measured:
    """One job's time and its workers' peak resident memory, by kind of worker.

    Attributes:
        seconds: Wall-clock time of the whole process.
        peak_gib: Kind of worker → most resident GiB of one such process.
        output: What the job printed.
    """

    seconds: float = 0.0
    peak_gib: dict[str, float] = field(default_factory=dict)
    output: str = ""


def write_corpus(directory: Path, rows: int) -> None:
    """Write rows of `builtin` with their pictures enlarged to what a photograph has."""
    corpus = open_corpus(CorpusSettings("builtin", max_rows=rows))
    table = pa.concat_tables(
        [corpus.read(i, 0, file.rows) for i, file in enumerate(corpus.snapshot.files)]
    )
    pictures = []
    for image in table["image"].to_pylist():
        picture = Image.open(io.BytesIO(image["bytes"])).convert("RGB")
        buffer = io.BytesIO()
        picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=90)
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    column = pa.array(pictures, table.schema.field("image").type)
    index = table.schema.get_field_index("image")
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.set_column(index, "image", column), directory / "rows.parquet")


def run_job(job: str, options: list[str]) -> Measured:
    """Run a job to its end, sampling the memory of the Ray workers that it starts."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    measured, started = Measured(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "jobs" / f"{job}.py"), *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watcher = threading.Thread(target=_watch, args=(process, measured.peak_gib))
    watcher.start()
    measured.output = process.communicate()[0]
    watcher.join()
    measured.seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"{job} failed:\n{measured.output[-4000:]}")
    return measured


def _watch(process: subprocess.Popen[str], peaks: dict[str, float]) -> None:
    """Keep the highest resident memory of each kind of worker until the job ends."""
    job = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            children = job.children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for child in children:
            try:
                title = " ".join(child.cmdline())
                kind = next((name for name in WORKERS if title.startswith(name)), None)
                if kind:
                    resident = child.memory_info().rss / GIB
                    peaks[kind] = max(peaks.get(kind, 0.0), resident)
            except psutil.Error:
                continue
        time.sleep(0.2)


def planned(output: str) -> dict[str, dict[str, float]]:
    """Return what `--plan` printed: stage → seconds, worker_gib, disk_gib."""
    stages = {}
    for name, *numbers in PLAN.findall(output):
        hours, worker_gib, disk_gib = (float(number.replace(",", "")) for number in numbers)
        stages[name] = {"seconds": hours * 3600, "worker_gib": worker_gib, "disk_gib": disk_gib}
    return stages


def chain_options(arguments: argparse.Namespace) -> list[str]:
    """Return the options that all jobs share.

    A streamed training needs its actors and its rank at the same time, on the same two cores.
    """
    actor, rank = ("0.5", "1") if arguments.streamed else ("1.5", "2")
    options = [
        *("--storage", arguments.storage, "--model", str(arguments.checkpoint)),
        *("--model.layer", "1", "--model.dtype", "bfloat16"),
        *("--run.token_budget", str(arguments.token_budget)),
        *("--run.cpus_per_actor", actor, "--train.cpus_per_worker", rank),
        *("--sae.d_sae", str(arguments.d_sae), "--sae.steps", str(arguments.steps)),
        *("--sae.k", "32", "--sae.batch_tokens", "4096", "--sae.lr_warmup_steps", "0"),
        *("--sae.lr_decay_steps", "0", "--shards.max_rows", "8"),
    ]
    for name in ("corpus", "sae_corpus"):
        options += [f"--{name}", "align-anything", f"--{name}.path", str(arguments.work / "corpus")]
    if arguments.streamed:
        options += ["--reading.stream", "true"]
    return options


def job_options(job: str, arguments: argparse.Namespace) -> list[str]:
    """Return the options of one job beyond those that all share."""
    if job == "cache" and arguments.layers:
        return ["--layers", json.dumps(arguments.layers)]
    return tuning_options(arguments) if job == "finetune" else []


def tuning_options(arguments: argparse.Namespace) -> list[str]:
    """Return the options of the fine-tuning: two steps of two pairs."""
    return [
        *("--finetune.dtype", "bfloat16", "--finetune.lora_rank", str(arguments.lora_rank)),
        *("--finetune.max_steps", "2", "--finetune.global_batch", "2"),
        *("--finetune.eval_fraction", "0", "--finetune.warmup_steps", "0"),
        *("--tune.per_device_batch", "1", "--tune.cpus_per_worker", "2"),
    ]


COMPARED = {
    "cache": {"cache": "ray::MapWorker"},
    "train": {"train": "ray::RayTrainWorker"},
    "filter": {"score": "ray::MapWorker"},
    "finetune": {"finetune": "ray::RayTrainWorker"},
}
"""Job → the stages whose plan its workers' peak is compared with, and what they are called; the
weights' actors and the scores' are alike."""
STREAMED = {"train": {"stream": "ray::MapWorker", "train": "ray::RayTrainWorker"}}
"""The same of a training without a cache."""


def compare(
    plan: dict[str, dict[str, float]],
    jobs: dict[str, Measured],
    compared: dict[str, dict[str, str]],
) -> dict[str, tuple[float, float]]:
    """Return stage → (planned, measured) of a worker's memory, in GiB."""
    return {
        stage: (plan[stage]["worker_gib"], job.peak_gib[worker])
        for name, job in jobs.items()
        for stage, worker in compared[name].items()
    }


def compare_cache(plan: dict[str, float], storage: Directory) -> dict[str, tuple[float, float]]:
    """Return (planned, measured) of a cache's GiB on the disk, and of its seconds.

    The seconds are from the stage's begin, Ray's included, to its end.
    """
    cached = sum(
        entry.size
        for entry in (storage / "activations").entries()
        if entry.key.endswith(".arrow") and "/shard-" in entry.key and ".samples." not in entry.key
    )
    caches = [storage / "activations" / name for name in (storage / "activations").directories()]
    seconds = max(cache.read_json("metadata.json")["seconds"] for cache in caches)
    return {"disk_gib": (plan["disk_gib"], cached / GIB), "seconds": (plan["seconds"], seconds)}


def differing(here: Directory, there: Directory) -> list[str]:
    """Return the files of artifacts and scores that two storages do not have alike.

    What tells when and how long something ran is left out: metadata, reports. A cache's marks tell
    it too, and always differ.
    """

    def sizes(storage: Directory) -> dict[str, int]:
        told = ("metadata.json", "spec.json", "report.html", "raysae.json")
        return {e.key: e.size for e in storage.entries() if not e.key.endswith(told)}

    first, second = sizes(here), sizes(there)
    return sorted(
        name
        for name in first.keys() | second.keys()
        if first.get(name) != second.get(name) or (here.read_bytes(name) != there.read_bytes(name))
    )


@contextmanager
def bucket() -> Iterator[tuple[str, Any]]:
    """Give the URI of a storage in a bucket of this machine, and the proxy before it."""
    with s3_server("real-shapes") as server, s3_proxy(server.endpoint) as proxy:
        os.environ.update(server.at(proxy.endpoint).environment)
        yield "s3://real-shapes/storage", proxy


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--d_sae", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--token_budget", type=int, default=6144)
    parser.add_argument("--lora_rank", type=int, default=16, help="0: all weights")
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--layers", type=int, nargs="+", help="of the cache")
    parser.add_argument("--streamed", action="store_true")
    parser.add_argument("--jobs", nargs="+", choices=list(COMPARED), default=list(COMPARED))
    arguments = parser.parse_args()
    write_corpus(arguments.work / "corpus", arguments.rows)
    arguments.storage = str(arguments.work / "storage")
    if arguments.streamed:
        arguments.jobs = ["train"]
    if not arguments.s3:
        store(measure(arguments), RESULTS / results_name(arguments))
        return
    local = storage_at(arguments.storage)
    with bucket() as (arguments.storage, proxy):
        results = measure(arguments)
        results["requests"] = {str(kind): n for kind, n in proxy.requests.items()}
        print(f"requests: {results['requests']}")
        if local.exists("raysae.json"):
            results["differing"] = differing(local, storage_at(arguments.storage))
            print(f"files that differ from the local storage's: {results['differing']}")
    store(results, RESULTS / "real_chain_s3.json")


def results_name(arguments: argparse.Namespace) -> str:
    """Return the name of the file for a run on a local storage."""
    if arguments.streamed:
        return "real_stream.json"
    if arguments.jobs == ["cache"]:
        return "real_cache_layers.json" if arguments.layers else "real_cache.json"
    return "real_chain.json"


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Plan, run and compare the jobs on one storage."""
    options, last = chain_options(arguments), arguments.jobs[-1]
    plan = planned(run_job(last, [*options, *job_options(last, arguments), "--plan"]).output)
    jobs = {}
    for job in arguments.jobs:
        jobs[job] = run_job(job, options + job_options(job, arguments))
        print(f"{job}: {jobs[job].seconds:.0f} s, peaks {jobs[job].peak_gib}", flush=True)
        print("\n".join(x for x in jobs[job].output.splitlines() if not x.startswith("  ")))
    compared = compare(plan, jobs, STREAMED if arguments.streamed else COMPARED)
    for name, (predicted, peak) in compared.items():
        ratio = peak / predicted
        print(f"{name:14} planned {predicted:.2f} GiB, measured {peak:.2f} ({ratio:.2f}×)")
    results = {}
    if "cache" in jobs:
        results["cache"] = compare_cache(plan["cache"], storage_at(arguments.storage))
        for name, (predicted, found) in results["cache"].items():
            print(f"cache {name} planned {predicted:.2f}, measured {found:.2f}")
    return {
        **circumstances(),
        "rows": arguments.rows,
        "lora_rank": arguments.lora_rank,
        "planned": plan,
        "compared_gib": compared,
        **results,
        "jobs": {
            name: {k: v for k, v in asdict(job).items() if k != "output"}
            for name, job in jobs.items()
        },
    }


if __name__ == "__main__":
    main()
