"""Claim `read_shuffled` of `cache.py`: batches of shuffled tokens out of a cache."""

from __future__ import annotations

import time
from typing import Any

from cache_tools import (
    CONTEXT,
    Bench,
    Samples,
    Written,
    new_directory,
    new_storage,
    ratio,
    say,
    settle,
    write_shards,
)
from measured import spread

from raysae.activations import BatchReader, CacheReader, ReadingOrder
from raysae.storage import Directory

BATCH = 4096
D_IN = 512

PEERS = {
    "sae_lens": {"prompts": BATCH // CONTEXT, "buffer_batches": BATCH // CONTEXT},
    "sae_lens_default": {"prompts": 32, "buffer_batches": 20},
}
"""The fastest of what was tried, whose buffer mixes two batches, and the defaults; both keep the
default share of half the buffer for mixing."""


def measure_read(bench: Bench) -> dict[str, Any]:
    """Read an epoch in turns, all of it in the page cache; the first turn does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ("raysae", *PEERS)}
    with new_directory(bench.work) as place, new_storage(bench.work) as directory:
        written = write_shards(directory, Samples(D_IN, "float32"), bench.tokens)
        bench.peer.ask(
            "write",
            path=place / "peer",
            d_in=D_IN,
            context=CONTEXT,
            tokens=bench.tokens,
            batch=32,
            buffer_tokens=32 * CONTEXT,
        )
        for repetition in range(bench.repetitions + 1):
            for name, settings in PEERS.items():
                settle()
                run = bench.peer.ask(
                    "read", path=place / "peer", d_in=D_IN, context=CONTEXT, batch=BATCH, **settings
                )
                rates[name].append(run["tokens"] * D_IN * 4 / run["seconds"] / 1e9)
            settle()
            rates["raysae"].append(read_shuffled(directory, written, 4 * D_IN))
            say(f"read {repetition}", **{name: taken[-1] for name, taken in rates.items()})
    counted = {name: taken[1:] for name, taken in rates.items()}
    return {
        "bytes": bench.tokens * D_IN * 4,
        "d_in": D_IN,
        "batch": BATCH,
        "peer_settings": PEERS,
        "gb_per_second": {name: spread(taken) for name, taken in counted.items()},
        "times_faster": ratio(counted["raysae"], counted["sae_lens"]),
        "times_faster_than_default": ratio(counted["raysae"], counted["sae_lens_default"]),
    }


def read_shuffled(directory: Directory, written: Written, row_bytes: int) -> float:
    """Read an epoch in training's order with a new reader; return GB/s."""
    started = time.perf_counter()
    reader = CacheReader(directory, written.files, written.rows)
    order = ReadingOrder(written.rows, seed=0)
    steps = order.total_rows // BATCH
    for tokens in BatchReader(reader, order, BATCH, slice(None)).batches(0, steps):
        assert len(tokens) == BATCH
    return steps * BATCH * row_bytes / (time.perf_counter() - started) / 1e9
