#!/usr/bin/env python3
"""raysae's activation cache beside SAELens' and beside the disk: writing, reading, Ray, memory.

    python3.11 -m venv peers && peers/bin/pip install sae-lens==6.54.12
    python benchmarks/cache.py --peer-python peers/bin/python --work DIRECTORY
    python benchmarks/cache.py --peer-python peers/bin/python --work DIRECTORY --only read_shuffled

The peer is the released package, unmodified, in an environment of its own; `cache_peer.py` runs
there. Both sides have the same threads (one, as Ray gives an actor of one CPU) and run in turns;
ratios are of runs that followed one another, given as median, lowest and highest. The first turn
warms up and does not count. On a machine with other work each run waits for a quiet moment.

- `write_data_path`: states that exist already, to files. The peer's model returns precomputed
  batches through `AutoModelForCausalLM`; what the model and the loading of tokens took is measured
  and taken off. Ours syncs its files and hashes them, in threads of its own, the peer does neither;
  `cores` tells the processors used. The peer's rate depends much on `buffer_size_gb`, so the
  fastest and the default (2, or less if it is more than a twentieth of the free memory) are told.
  Ours keeps its memory from run to run, as an actor does from shard to shard.
- `end_to_end`: texts to files, with the same model, tokens and block, and how far apart the states
  are. The peer's model is an `AutoModelForCausalLM`, which stops after that block too: its other
  kind, `HookedTransformer`, loads published checkpoints alone.
- `read_shuffled`: batches of 4,096 tokens out of a cache in the page cache. The peer's buffer mixes
  few batches, ours four shards; the fastest settings and the defaults are told.
- `disk`: ours beside plain writes, and beside plain copies out of mapped files.
- `ray_overhead`: the stage on Ray beside its worker in a plain loop.
- `actor_memory`: resident memory of a worker's process, over many small shards.

Results go to `benchmarks/results/cache.json`; `--only` replaces the parts that it names.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from cache_disk import measure_disk
from cache_forward import measure_end_to_end
from cache_ray import measure_actor_memory, measure_ray_overhead
from cache_read import measure_read
from cache_tools import Bench, Peer
from cache_write import measure_write
from measured import RESULTS, circumstances, store

PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "write_data_path": measure_write,
    "end_to_end": measure_end_to_end,
    "read_shuffled": measure_read,
    "disk": measure_disk,
    "ray_overhead": measure_ray_overhead,
    "actor_memory": measure_actor_memory,
}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a directory on the disk")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=1 << 19)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ray-rows", type=int, default=10_000)
    parser.add_argument("--memory-shards", type=int, default=1000)
    parser.add_argument("--results", type=Path, default=RESULTS / "cache.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    peer = Peer(arguments.peer_python, arguments.threads, arguments.work / "peer.log")
    bench = Bench(
        peer=peer,
        work=arguments.work,
        memory=arguments.memory,
        repetitions=arguments.repetitions,
        threads=arguments.threads,
        tokens=arguments.tokens,
        device=arguments.device,
        ray_rows=arguments.ray_rows,
        memory_shards=arguments.memory_shards,
    )
    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    try:
        results["versions"] = _versions(peer)
        for part in arguments.only:
            results[part] = {**_circumstances(bench), **PARTS[part](bench)}
            store(results, arguments.results)
    finally:
        peer.close()
    print(json.dumps(results, indent=2))


def _versions(peer: Peer) -> dict[str, Any]:
    names = ("raysae", "torch", "transformers", "pyarrow", "numpy", "ray")
    return {"raysae": {name: version(name) for name in names}, "peer": peer.ask("versions")}


def _circumstances(bench: Bench) -> dict[str, Any]:
    """Return when and where a part is measured, since parts are measured one by one."""
    return {
        **circumstances(),
        "threads": bench.threads,
        "repetitions": bench.repetitions,
    }


if __name__ == "__main__":
    main()
