"""Claims `ray_overhead` and `actor_memory` of `cache.py`: Ray's cost, and an actor's memory."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from cache_tools import Bench, new_directory, ratio, say, settle, spreads

from raysae.artifacts import MARK_SUFFIX
from raysae.corpora import CorpusSettings
from raysae.corpora.builtin import builtin_directory
from raysae.corpora.columns import ColumnMap
from raysae.stages._hidden_states import Reading
from raysae.stages.cache import CacheWorker, run_cache
from raysae.stages.chain import Chain, ChainSettings, ShardSettings

COLUMNS = ColumnMap(
    question="question",
    image="image",
    response_1="response_1",
    response_2="response_2",
    preference="overall_response",
)

MEMORY_SHARD_ROWS = 4
_MIB = 2**20


def cache_worker(chain: Chain) -> CacheWorker:
    """Build the worker that Ray's actors hold."""
    return CacheWorker(
        artifacts=chain.caches,
        reading=Reading.of(chain.settings),
        cache=chain.settings.cache,
        compression=chain.settings.run.compress_cache,
    )


def work_in_plain_loop(chain: Chain) -> dict[str, float]:
    """Do all shards' work, reading included; loading the model is timed by itself."""
    started = time.perf_counter()
    worker = cache_worker(chain)
    corpus = chain.sae_corpus
    loaded = time.perf_counter()
    totals = {"rows": 0.0, "tokens": 0.0}
    for shard in chain.shards(corpus):
        publish = worker.work(shard, list(corpus.read_samples(shard)))
        counts = publish()
        totals = {name: value + counts[name] for name, value in totals.items()}
    return {
        **totals,
        "loading_seconds": loaded - started,
        "seconds": time.perf_counter() - loaded,
    }


def measure_ray_overhead(bench: Bench) -> dict[str, Any]:
    """Run the stage on Ray and its worker in a plain loop, in turns."""
    plain, on_ray = [], []
    with new_directory(bench.work) as place:
        corpus = _write_corpus(place, bench.ray_rows)
        for repetition in range(max(1, bench.repetitions // 2)):
            settle()
            plain.append(_in_plain_loop(place / f"plain-{repetition}", corpus))
            settle()
            on_ray.append(_on_ray(place / f"ray-{repetition}", corpus))
            say(f"plain {repetition}", **plain[-1])
            say(f"ray {repetition}", **on_ray[-1])
    assert {run["rows"] for run in (*plain, *on_ray)} == {float(bench.ray_rows)}
    seconds = [run["seconds"] for run in plain]
    return {
        "repetitions": len(plain),
        "plain_loop": spreads(plain),
        "ray": spreads(on_ray),
        "steady_times_plain": ratio([run["steady_seconds"] for run in on_ray], seconds),
        "all_times_plain": ratio([run["seconds"] for run in on_ray], seconds),
    }


def _write_corpus(place: Path, rows: int) -> CorpusSettings:
    """Write the built-in corpus' rows, over and over, as one Parquet file."""
    table = pa.concat_tables(
        pq.read_table(file) for file in sorted(builtin_directory("builtin").glob("*.parquet"))
    )
    path = place / "corpus" / "rows.parquet"
    path.parent.mkdir()
    repeated = pa.concat_tables([table] * -(-rows // len(table))).slice(0, rows)
    pq.write_table(repeated, path, row_group_size=500)
    return CorpusSettings("generic", str(path.parent), columns=COLUMNS)


def _in_plain_loop(storage: Path, corpus: CorpusSettings) -> dict[str, float]:
    return work_in_plain_loop(Chain(ChainSettings(storage=str(storage), sae_corpus=corpus)))


def _on_ray(storage: Path, corpus: CorpusSettings) -> dict[str, float]:
    """Run the stage with an actor of one CPU, in a Ray of its own.

    An actor has started when its first shard was begun: the mark's time less its seconds.
    """
    import ray

    from raysae.stages.connection import connect

    started = time.time()
    ray.init(address="local", logging_level="warning")
    connect()
    connected = time.time()
    chain = Chain(ChainSettings(storage=str(storage), sae_corpus=corpus))
    try:
        result = run_cache(chain)
    finally:
        ended = time.time()
        ray.shutdown()
    marks = list(chain.activations.marks(chain.shards(chain.sae_corpus)))
    directory = Path(str(chain.activations.directory))
    written = sorted(file.stat().st_mtime for file in directory.glob(f"*{MARK_SUFFIX}"))
    first = min(written) - marks[0]["seconds"]
    return {
        "rows": float(result.rows),
        "shards": len(marks),
        "connect_seconds": connected - started,
        "actor_start_seconds": first - connected,
        "steady_seconds": written[-1] - first,
        "at_work_seconds": sum(mark["seconds"] for mark in marks),
        "finish_seconds": ended - written[-1],
        "seconds": ended - started,
    }


def measure_actor_memory(bench: Bench) -> dict[str, Any]:
    """Follow the resident memory of a process that does an actor's work, shard by shard."""
    with new_directory(bench.work) as place:
        corpus = _write_corpus(place, bench.memory_shards * MEMORY_SHARD_ROWS)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            resident = pool.submit(_resident_over_shards, str(place), corpus, bench.threads)
            mib_s = np.array(resident.result()) / _MIB
    half = len(mib_s) // 2
    second = mib_s[half:]
    shards = np.arange(len(mib_s))
    measured = {
        "first_mib": mib_s[0],
        "last_mib": mib_s[-1],
        "slope_kib_per_shard": 1024 * np.polyfit(shards, mib_s, 1)[0],
        "slope_kib_per_shard_in_second_half": 1024 * np.polyfit(shards[half:], second, 1)[0],
        "second_half_less_first_half_mib": second.mean() - mib_s[:half].mean(),
    }
    told = {name: float(f"{value:.4g}") for name, value in measured.items()}
    say("actor memory", **told)
    return {
        "shards": len(mib_s),
        "rows_per_shard": MEMORY_SHARD_ROWS,
        **told,
        "mib_over_time": [round(float(mib_s[tenth * len(mib_s) // 10]), 1) for tenth in range(10)],
    }


def _resident_over_shards(place: str, corpus: CorpusSettings, threads: int) -> list[int]:
    """Work on every shard, and return the resident bytes after each."""
    torch.set_num_threads(threads)
    chain = Chain(
        ChainSettings(
            storage=f"{place}/storage",
            sae_corpus=corpus,
            shards=ShardSettings(max_rows=MEMORY_SHARD_ROWS),
        )
    )
    worker, process, resident = cache_worker(chain), psutil.Process(), []
    for shard in chain.shards(chain.sae_corpus):
        publish = worker.work(shard, list(chain.sae_corpus.read_samples(shard)))
        publish()
        resident.append(process.memory_info().rss)
    return resident
