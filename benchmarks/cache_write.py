"""Claim `write_data_path` of `cache.py`: hidden states to files, the forward pass left out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil
from cache_tools import (
    CONTEXT,
    Bench,
    Samples,
    new_directory,
    new_storage,
    ratio,
    say,
    settle,
    spreads,
    write_shards,
)
from measured import spread

BATCH = 32
FAST_BUFFER_BYTES = 32 << 20
"""The fastest of what was tried, 32 MiB to 1 GiB; a forward pass of `BATCH` is the least."""

DEFAULT_BUFFER_BYTES = 2_000_000_000
"""`buffer_size_gb=2`."""

_MEMORY_SHARE = 20
"""The share of free memory that a buffer may be: the peer takes nine times the buffer's bytes, and
others work on the machine."""


def measure_write(bench: Bench) -> dict[str, Any]:
    """Measure widths 512 and 2,048 on the disk, and 512 in memory, where no disk is waited for."""
    half = bench.tokens // 2
    return {
        "d_in_512": _measure(bench, bench.work, 512, bench.tokens),
        "d_in_512_in_memory": _measure(bench, bench.memory, 512, half),
        "d_in_2048": _measure(bench, bench.work, 2048, bench.tokens // 4),
    }


def _measure(bench: Bench, place: Path, d_in: int, tokens: int) -> dict[str, Any]:
    """Run peer and ours in turns; the first turn warms up and does not count."""
    peer, peer_default, ours, bfloat16 = [], [], [], []
    samples, halves = Samples(d_in, "float32"), Samples(d_in, "bfloat16")
    fast = max(BATCH * CONTEXT, FAST_BUFFER_BYTES // (d_in * 4))
    for repetition in range(bench.repetitions + 1):
        with new_directory(place) as path:
            peer.append(_peer(bench, path, d_in, tokens, fast))
            peer_default.append(_peer(bench, path, d_in, *_default_buffer(d_in, tokens)))
        ours.append(_ours(place, samples, tokens))
        bfloat16.append(_ours(place, halves, tokens))
        say(
            f"write {d_in} in {place.name} {repetition}",
            peer=peer[-1]["gb_per_second"],
            peer_default=peer_default[-1]["gb_per_second"],
            ours=ours[-1]["gb_per_second"],
            bfloat16=bfloat16[-1]["gb_per_second"],
        )
    runs = {
        "sae_lens": peer[1:],
        "sae_lens_default_buffer": peer_default[1:],
        "raysae": ours[1:],
        "raysae_bfloat16": bfloat16[1:],
    }
    rate = {name: [run["gb_per_second"] for run in taken] for name, taken in runs.items()}
    synced = [run["gb_per_second_with_sync"] for run in peer[1:]]
    return {
        "bytes": tokens * d_in * 4,
        "buffer_bytes": {"sae_lens": fast * d_in * 4, "default": peer_default[-1]["buffer_bytes"]},
        **{name: spreads(taken) for name, taken in runs.items()},
        "times_faster": ratio(rate["raysae"], rate["sae_lens"]),
        "times_faster_than_peer_with_sync": ratio(rate["raysae"], synced),
        "times_faster_than_default_buffer": ratio(rate["raysae"], rate["sae_lens_default_buffer"]),
        "tokens_per_second_times_with_bfloat16": spread(
            [
                2 * one / other
                for one, other in zip(rate["raysae_bfloat16"], rate["sae_lens"], strict=True)
            ]
        ),
    }


def _default_buffer(d_in: int, tokens: int) -> tuple[int, int]:
    """Return tokens to write and tokens of a buffer, of the default's bytes if there is room.

    Else the default is halved until it is.
    """
    size = DEFAULT_BUFFER_BYTES
    while size * _MEMORY_SHARE > psutil.virtual_memory().available or size > 2 * tokens * d_in * 4:
        size //= 2
    batch = BATCH * CONTEXT
    buffer = max(1, size // (d_in * 4) // batch) * batch
    return buffer, buffer


def _peer(bench: Bench, path: Path, d_in: int, tokens: int, buffer: int) -> dict[str, float]:
    """Let the peer write; its forward pass and its loading of tokens are taken off."""
    settle()
    cache = path / "peer"
    run = bench.peer.ask(
        "write",
        path=cache,
        d_in=d_in,
        context=CONTEXT,
        tokens=tokens,
        batch=BATCH,
        buffer_tokens=buffer,
    )
    shutil.rmtree(cache)
    off = run["forward_seconds"] + run["token_seconds"]
    written = run["tokens"] * d_in * 4 / 1e9
    return {
        "gb_per_second": written / (run["seconds"] - off),
        "gb_per_second_with_sync": written / (run["seconds_with_sync"] - off),
        "share_of_forward_and_tokens": off / run["seconds"],
        "cores": run["cores"],
        "peak_gib": run["peak_gib"],
        "buffer_bytes": buffer * d_in * 4,
    }


def _ours(place: Path, samples: Samples, tokens: int) -> dict[str, float]:
    with new_storage(place) as directory:
        settle()
        written = write_shards(directory, samples, tokens)
    size = sum(written.rows) * samples.row_bytes
    return {
        "gb_per_second": size / written.seconds / 1e9,
        "cores": written.cores,
    }
