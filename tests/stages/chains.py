"""A chain that is small enough to be made in a test, and what tests ask of directories."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from raysae.activations import CachedTokens, CacheReader
from raysae.corpora import CorpusSettings
from raysae.models import ModelSettings
from raysae.sae import SaeSettings
from raysae.scoring import ScoreSettings, WeightSettings
from raysae.stages.chain import Chain, ChainSettings, ShardSettings, TrainRunSettings

TINY_SAE = SaeSettings(
    architecture="topk",
    d_sae=128,
    k=8,
    steps=40,
    batch_tokens=256,
    lr=1e-3,
    lr_warmup_steps=5,
    lr_decay_steps=10,
    dead_after_tokens=2000,
    aux_k=16,
)


def small_settings(storage: Path, model: Path, **changes: Any) -> ChainSettings:
    """Settings of a chain of 64 and 96 rows in shards of 32 on the tiny model."""
    settings = ChainSettings(
        storage=str(storage),
        sae_corpus=CorpusSettings("builtin", max_rows=64),
        corpus=CorpusSettings("builtin-noisy", max_rows=96),
        model=ModelSettings(path=str(model), layer=4),
        shards=ShardSettings(max_rows=32),
        sae=TINY_SAE,
        weights=WeightSettings(n_samples=48),
        score=ScoreSettings(threshold=0.5),
        train=TrainRunSettings(checkpoint_every=20),
    )
    return replace(settings, **changes)


def contents(directory: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file below a directory, by relative path."""
    return {
        str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def unfinished_files(directory: Path) -> list[str]:
    """Return what an interrupted writer would leave."""
    return [name for name in contents(directory) if ".tmp-" in name]


def reader_of(chain: Chain) -> CacheReader:
    """Open the chain's cached hidden states."""
    return CacheReader(chain.activations.directory, chain.activations.metadata()["data_files"])


def cached_sample(reader: CacheReader, shard: int, index: int) -> CachedTokens:
    """Return the cached tokens of a shard's sample, in the order of their positions."""
    tokens = reader.read_rows(shard, np.arange(reader.shard_rows[shard]))
    mine = np.flatnonzero(tokens.sample_n == index)
    return reader.read_rows(shard, mine[np.argsort(tokens.position_n[mine])])


def argv_of(settings: ChainSettings) -> list[str]:
    """Return the options that give a job these settings."""
    argv = []
    for name, value in asdict(settings).items():
        fields = (
            {f"{name}.{k}": v for k, v in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
        argv += [f"--{key}={json_value(item)}" for key, item in fields.items() if item is not None]
    return argv


def json_value(value: Any) -> str:
    """Write a value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
