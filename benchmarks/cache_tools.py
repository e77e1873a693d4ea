"""What the parts of `cache.py` share: the peer's process, shards made beforehand, and ratios."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import psutil
import torch
from measured import spread

from raysae.activations import CacheSettings, Memory, ShardWriter
from raysae.sample import TokenBatch
from raysae.storage import Directory, open_storage

CONTEXT = 512
"""Tokens of a sample: SAELens stores sequences of one length, and is faster with long ones."""

_BANK_BYTES = 64 << 20
_QUIET_S = 1.0
_QUIET_PERCENT = 10
_QUIET_TRIES = 8


class Peer:
    """A process of the environment with sae-lens, in which `cache_peer.py` does what it is asked.

    Args:
        python: That environment's interpreter.
        threads: Threads of torch and of all else there.
        log: Takes what its libraries print.
    """

    def __init__(self, python: Path, threads: int, log: Path) -> None:
        self._log: IO[str] = log.open("w")
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(threads),
        }
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("cache_peer.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def ask(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Let it do a task, and return what it measured.

        Raises:
            RuntimeError: It ended; what it said last.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"task": task, "arguments": arguments}, default=str) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            said = Path(self._log.name).read_text().splitlines()[-12:]
            raise RuntimeError("the peer ended: " + "\n".join(said))
        measured: dict[str, Any] = json.loads(answer)
        return measured

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()


@dataclass(frozen=True)
class Bench:
    """What every part is given.

    Attributes:
        peer: Runs sae-lens.
        work: A directory on the disk.
        memory: A directory in memory.
        repetitions: How often each pair runs, one more that warms up aside.
        threads: Of torch, for both sides.
        tokens: Tokens written and read, for states of width 512 in float32.
        device: Where models run.
        ray_rows: Samples that Ray works on.
        memory_shards: Shards that one actor writes.
    """

    peer: Peer
    work: Path
    memory: Path
    repetitions: int
    threads: int
    tokens: int
    device: str
    ray_rows: int
    memory_shards: int


class Samples:
    """Hidden states made beforehand, handed out sample by sample, over and over.

    Args:
        d_in: Width of a hidden state.
        dtype: A dtype of the cache.

    Attributes:
        memory: Of their writers.
    """

    def __init__(self, d_in: int, dtype: str) -> None:
        self.d_in, self.dtype = d_in, dtype
        self.memory = Memory()
        number = torch.float32.itemsize if dtype == "float32" else torch.bfloat16.itemsize
        self.row_bytes = d_in * number
        count = max(1, _BANK_BYTES // (CONTEXT * self.row_bytes))
        generator = torch.Generator().manual_seed(0)
        states = torch.randn((count, CONTEXT, d_in), generator=generator)
        self._states = states.to(getattr(torch, dtype))
        self._position_n = np.arange(CONTEXT, dtype=np.int32)
        self._zeros_n = np.zeros(CONTEXT, dtype=np.int32)

    def batch(self, number: int) -> TokenBatch:
        """Return one sample's tokens."""
        return TokenBatch(
            sample_n=self._zeros_n,
            position_n=self._position_n,
            token_id_n=self._position_n,
            modality_n=self._zeros_n.astype(np.uint8),
            acts_nd=self._states[number % len(self._states)],
        )


class Written(NamedTuple):
    """Shards of one run.

    Attributes:
        files: Names of the token files.
        rows: Tokens in each.
        seconds: From the first sample to the last file's sync.
        cores: Processor time by time.
    """

    files: list[str]
    rows: list[int]
    seconds: float
    cores: float


def write_shards(directory: Directory, samples: Samples, tokens: int, shards: int = 4) -> Written:
    """Write hidden states as an actor does that has been at work for a while, but without a model.

    A shard is published by a thread while the next one is collected, and memory is kept: `samples`
    holds it from run to run.
    """
    started, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(1) as publishing:
        written = []
        for shard in range(shards):
            writer = ShardWriter(
                directory,
                f"shard-{shard:05d}",
                samples.d_in,
                samples.dtype,
                CacheSettings(),
                memory=samples.memory,
            )
            for number in range(tokens // shards // CONTEXT):
                ordinal = shard * tokens + number
                writer.add(number, f"sample-{ordinal}", ordinal, samples.batch(number))
            if written:
                written[-1].result()
            written.append(publishing.submit(writer.finish))
        published = [one.result().shard for one in written]
    seconds = time.perf_counter() - started
    return Written(
        [one.data for one in published],
        [one.rows for one in published],
        seconds,
        (time.process_time() - used) / seconds,
    )


@contextmanager
def new_directory(parent: Path) -> Iterator[Path]:
    """Give a directory that is removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="raysae-benchmark-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def new_storage(parent: Path) -> Iterator[Directory]:
    """Give a storage that is removed afterwards."""
    with new_directory(parent) as path:
        yield open_storage(str(path))


def settle(memory_gib: int = 2) -> None:
    """Bring the machine into the same state before each timed run, whoever ran before.

    What others wrote and did not sync would be written during the run; and a virtual machine takes
    free memory from its host page by page again if it was idle, at a tenth of the usual speed. Then
    wait, for eight seconds at most, until nobody else of this priority is at work.
    """
    os.sync()
    touched = np.empty(memory_gib << 30, dtype=np.uint8)
    touched[::4096] = 1
    del touched
    for _ in range(_QUIET_TRIES):
        if psutil.cpu_times_percent(_QUIET_S).user <= _QUIET_PERCENT:
            break


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Return the spread of the quotients of runs that followed one another."""
    return spread([one / other for one, other in zip(above, below, strict=True)])


def say(part: str, **numbers: float) -> None:
    """Print one run's numbers."""
    print(part, *(f"{name} {value:.4g}" for name, value in numbers.items()), flush=True)


def spreads(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the spread of each number of some runs."""
    return {name: spread([run[name] for run in runs]) for name in runs[0]}
