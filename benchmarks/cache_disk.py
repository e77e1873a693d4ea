"""Claim `disk` of `cache.py`: the cache's rates beside what the disk and plain copies reach."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cache_read import BATCH, D_IN, read_shuffled
from cache_tools import (
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
from measured import drop_from_page_cache, spread

from raysae.activations import CacheReader
from raysae.storage import Directory

PIECE_BYTES = 8 << 20
"""Of a plain write and of a plain copy: as much as a batch of `BATCH` tokens."""

_LIBC = ctypes.CDLL(None, use_errno=True)


def measure_disk(bench: Bench) -> dict[str, Any]:
    """Measure writing, then reading from the page cache and from the disk."""
    return {"write": _measure_write(bench), **_measure_reads(bench)}


def _measure_write(bench: Bench) -> dict[str, Any]:
    samples = Samples(D_IN, "float32")
    plain, direct, ours, summed = [], [], [], []
    for repetition in range(bench.repetitions + 1):
        with new_directory(bench.work) as path:
            settle()
            size = bench.tokens * samples.row_bytes
            plain.append(_plain_write(path / "plain", samples, size, 0))
            settle()
            direct.append(_plain_write(path / "direct", samples, size, os.O_DIRECT))
            summed.append(_sha256(path / "plain"))
        with new_storage(bench.work) as directory:
            settle()
            written = write_shards(directory, samples, bench.tokens)
        ours.append(bench.tokens * samples.row_bytes / written.seconds / 1e9)
        say(
            f"disk write {repetition}",
            plain=plain[-1],
            direct=direct[-1],
            ours=ours[-1],
            sha256=summed[-1],
        )
    return {
        "bytes": bench.tokens * samples.row_bytes,
        "gb_per_second": {
            "plain": spread(plain[1:]),
            "plain_direct": spread(direct[1:]),
            "raysae": spread(ours[1:]),
            "sha256_of_the_file": spread(summed[1:]),
        },
        "share_of_plain": ratio(ours[1:], plain[1:]),
        "share_of_plain_direct": ratio(ours[1:], direct[1:]),
        "share_of_sha256": ratio(ours[1:], summed[1:]),
    }


def _plain_write(path: Path, samples: Samples, size: int, flags: int) -> float:
    """Write the same states as one file, in pieces, and sync it; return GB/s."""
    states = samples.batch(0).acts_nd.numpy()
    # O_DIRECT wants memory that begins at a page.
    piece = np.frombuffer(mmap.mmap(-1, PIECE_BYTES), states.dtype)
    piece[:] = np.resize(states, PIECE_BYTES // states.itemsize)
    started = time.perf_counter()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    for _ in range(size // PIECE_BYTES):
        assert os.write(file, piece.data.cast("B")) == PIECE_BYTES
    os.fsync(file)
    os.close(file)
    return size / (time.perf_counter() - started) / 1e9


def _sha256(path: Path) -> float:
    """Hash a file as marks do; return GB/s."""
    started = time.perf_counter()
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")
    return path.stat().st_size / (time.perf_counter() - started) / 1e9


def _measure_reads(bench: Bench) -> dict[str, Any]:
    with new_storage(bench.work) as directory:
        written = write_shards(directory, Samples(D_IN, "float32"), bench.tokens)
        paths = [Path(directory.describe(name)) for name in written.files]
        ways: dict[str, Callable[[], float]] = {
            "plain_into_one_array": lambda: _plain_read(paths, fresh=False),
            "plain_into_new_arrays": lambda: _plain_read(paths, fresh=True),
            "raysae_in_order": lambda: _read_in_order(directory, written),
            "raysae_shuffled": lambda: read_shuffled(directory, written, 4 * D_IN),
        }
        return {
            "read_hot": _compare(bench, ways, _keep),
            "read_cold": _compare(bench, ways, lambda: _evict(paths)),
        }


def _compare(
    bench: Bench, ways: dict[str, Callable[[], float]], prepare: Callable[[], float]
) -> dict[str, Any]:
    """Run every way in turns; the first turn does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    resident = 0.0
    for repetition in range(bench.repetitions + 1):
        for name, way in ways.items():
            settle()
            resident = max(resident, prepare())
            rates[name].append(way())
        say(f"disk read {repetition}", **{name: taken[-1] for name, taken in rates.items()})
    counted = {name: taken[1:] for name, taken in rates.items()}
    shares = {
        f"{ours} / {plain}": ratio(counted[ours], counted[plain])
        for ours in ("raysae_in_order", "raysae_shuffled")
        for plain in ("plain_into_one_array", "plain_into_new_arrays")
    }
    told = {"largest_share_in_page_cache_before": resident} if prepare is not _keep else {}
    return {
        **told,
        "gb_per_second": {name: spread(taken) for name, taken in counted.items()},
        "share_of_plain": shares,
    }


def _plain_read(paths: Sequence[Path], *, fresh: bool) -> float:
    """Copy mapped files in pieces, into one array or each into a new one; return GB/s."""
    target = np.empty(PIECE_BYTES, dtype=np.uint8)
    size = 0
    started = time.perf_counter()
    for path in paths:
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
        size += len(mapped)
        for start in range(0, len(mapped), PIECE_BYTES):
            piece = mapped[start : start + PIECE_BYTES]
            into = np.empty(len(piece), dtype=np.uint8) if fresh else target[: len(piece)]
            np.copyto(into, piece)
    return size / (time.perf_counter() - started) / 1e9


def _read_in_order(directory: Directory, written: Written) -> float:
    """Read all rows, batch by batch, with a new reader; return GB/s."""
    started = time.perf_counter()
    reader = CacheReader(directory, written.files, written.rows)
    for shard, rows in enumerate(written.rows):
        for start in range(0, rows, BATCH):
            reader.read_rows(shard, np.arange(start, min(start + BATCH, rows)))
    return sum(written.rows) * 4 * D_IN / (time.perf_counter() - started) / 1e9


def _keep() -> float:
    """Leave the files where they are, in the page cache."""
    return 1.0


def _evict(paths: Sequence[Path]) -> float:
    """Drop the files out of the page cache; return the largest share of one that stayed."""
    os.sync()
    drop_from_page_cache(paths)
    return max(_resident_share(path) for path in paths)


def _resident_share(path: Path) -> float:
    """Return the share of a file's pages that are in the page cache."""
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    mapped = np.memmap(path, dtype=np.uint8, mode="r")
    told = (ctypes.c_ubyte * pages)()
    if _LIBC.mincore(ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(size), told):
        raise OSError(ctypes.get_errno(), "mincore failed")
    return sum(page & 1 for page in told) / pages
