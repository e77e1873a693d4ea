"""Hidden states to SAE: data-parallel ranks under Ray Train, each on its slice of every batch."""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.collective
import ray.train.torch
import torch

from raysae.activations import (
    BatchReader,
    CachedTokens,
    CacheReader,
    ReadingOrder,
    ReadingSettings,
)
from raysae.artifacts import Artifact
from raysae.errors import DataError
from raysae.models import ModelSettings
from raysae.sae import SAE_FILES, Ranks, Sae, SaeHealth, SaeSettings, SaeTrainer, save_saelens
from raysae.stages._checkpoints import Checkpoints
from raysae.stages._outcome import Outcome, finishing
from raysae.stages._ranks import RankPlan, run_ranks
from raysae.stages.chain import Chain, TrainRunSettings
from raysae.stages.result import COUNTED, StageResult
from raysae.storage import Directory, as_number, to_json

START_SAMPLE_TOKENS = 8192
"""Tokens that the input scale and b_dec are estimated from."""

HEALTH_TOKENS = 32_768
"""Tokens that the finished SAE is judged by, at most."""

LOG_POINTS = 100
"""Points of the training curve."""

CHECKPOINTS = "checkpoints"

STATE_FILE = "state.pt"
HISTORY_FILE = "history.json"
HEALTH_FILE = "health.json"


@dataclass(frozen=True)
class TrainTask:
    """All that a rank needs to know.

    Attributes:
        artifact: Where the SAE goes.
        cache: Directory of the hidden states.
        data_files: The cache's token files.
        shard_rows: Rows of each.
        held_out: How many of the last files the SAE is judged by instead of trained on.
        sae: What to train.
        reading: In what order the cache is read.
        model: What the hidden states are of; noted in the SAE's file.
        d_in: Width of a hidden state.
        run: Ranks and checkpoints.
    """

    artifact: Artifact
    cache: Directory
    data_files: tuple[str, ...]
    shard_rows: tuple[int, ...]
    held_out: int
    sae: SaeSettings
    reading: ReadingSettings
    model: ModelSettings
    d_in: int
    run: TrainRunSettings

    @property
    def trained_rows(self) -> tuple[int, ...]:
        """Rows of the files that are trained on."""
        return self.shard_rows[: len(self.shard_rows) - self.held_out]


def run_train(chain: Chain) -> StageResult:
    """Train the SAE on the cached hidden states, from its last checkpoint if there is one.

    Raises:
        DataError: The cache is empty or damaged, or training diverged.
    """
    artifact = chain.sae
    # First, so that nobody removes the cache as used up while its metadata is read.
    artifact.begin()
    task = _train_task(chain)
    started = time.monotonic()
    with finishing(artifact) as outcome:
        resumed = outcome.read() is not None or Checkpoints(outcome.work / CHECKPOINTS).newest()
        if outcome.read() is None:
            run_ranks(_train_rank, {"task": task}, _rank_plan(task.run))
        cache = _about(chain.activations)
        outcome.finish(lambda about: _metadata(task, started, cache, about["health"]))
    metadata = artifact.metadata()
    _print_health(metadata["health"])
    return StageResult(metadata["rows"], 0, bool(resumed))


def _metadata(
    task: TrainTask, started: float, cache: dict[str, Any], health: dict[str, Any]
) -> dict[str, Any]:
    """Return what the SAE's metadata tells."""
    return {
        "rows": cache["rows"],
        "rejected": 0,
        "rejections": {},
        "tokens": task.sae.steps * task.sae.batch_tokens,
        "d_in": task.d_in,
        "workers": task.run.workers,
        "health": health,
        "activations": cache,
        "seconds": time.monotonic() - started,
    }


def _rank_plan(run: TrainRunSettings) -> RankPlan:
    """Return what is asked of Ray."""
    return RankPlan(
        workers=run.workers,
        cpus=run.cpus_per_worker,
        gpus=run.gpus_per_worker,
        max_failures=run.max_failures,
        settings=("train.workers", "train.cpus_per_worker", "train.gpus_per_worker"),
    )


def _about(cache: Artifact) -> dict[str, Any]:
    """Return what a report tells of the cache, so that a used-up cache can be removed."""
    metadata = cache.metadata()
    told = ("finished_at", "seconds", *COUNTED)
    return {"name": cache.name, **{name: metadata[name] for name in told}}


def _train_task(chain: Chain) -> TrainTask:
    """Gather what training needs from the cache's metadata."""
    metadata = chain.activations.metadata()
    # A shard all of whose rows were rejected has nothing to train on or to be judged by.
    listed = zip(metadata["data_files"], metadata["data_rows"], strict=True)
    shards = [(name, rows) for name, rows in listed if rows]
    if not shards:
        raise DataError(
            f"train: the cache {chain.activations.directory} holds no token; keep more of them "
            "with other cache settings."
        )
    return TrainTask(
        artifact=chain.sae,
        cache=chain.activations.directory,
        data_files=tuple(name for name, _ in shards),
        shard_rows=tuple(rows for _, rows in shards),
        held_out=_held_out(len(shards)),
        sae=chain.settings.sae,
        reading=chain.settings.reading,
        model=chain.settings.model,
        d_in=metadata["d_in"],
        run=chain.settings.train,
    )


def _held_out(shards: int) -> int:
    """Return how many shards are held out: a twentieth, at least one unless there is but one."""
    return 0 if shards == 1 else max(1, shards // 20)


def _train_rank(config: dict[str, Any]) -> None:
    """Train one rank: what Ray Train calls in every worker, again after a restart."""
    task: TrainTask = config["task"]
    outcome = Outcome(task.artifact)
    # Rank 0 decides for all: a run beside this one may be the first meanwhile.
    if ray.train.collective.broadcast_from_rank_zero(outcome.is_there()):
        return
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    device = ray.train.torch.get_device()
    reader = CacheReader(task.cache, task.data_files, task.shard_rows, task.reading.mix_shards)
    order = ReadingOrder(task.trained_rows, task.sae.seed, task.reading.mix_shards)
    trainer = SaeTrainer(
        task.sae,
        task.d_in,
        device,
        _start_sample(reader, task.trained_rows).acts_nd,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    checkpoints = Checkpoints(outcome.work / CHECKPOINTS)
    history = _restore(trainer, checkpoints, ranks.rank)
    log_every = max(1, task.sae.steps // LOG_POINTS)
    mine = ranks.rows(task.sae.batch_tokens)
    batches = BatchReader(reader, order, task.sae.batch_tokens, mine)
    for tokens in batches.batches(trainer.steps_done, task.sae.steps):
        trainer.step(tokens.acts_nd, tokens.modality_n)
        done, last = trainer.steps_done, trainer.steps_done == task.sae.steps
        if done % log_every == 0 or last:
            history.append(trainer.metrics())
            if ranks.rank == 0 and (len(history) % 10 == 0 or last):
                _print_progress(history[-1], task.sae.steps)
        if ranks.rank == 0 and (done % task.run.checkpoint_every == 0 or last):
            _save(trainer, history, checkpoints)
    if ranks.rank == 0:
        _write_outcome(task, trainer, history, reader)


def _start_sample(reader: CacheReader, shard_rows: Sequence[int]) -> CachedTokens:
    """Read tokens from all over the cache, at even distances; a shard's own order is random."""
    ends = np.cumsum(shard_rows, dtype=np.int64)
    count = min(START_SAMPLE_TOKENS, int(ends[-1]))
    token_n = np.arange(count) * int(ends[-1]) // count
    shard_n = np.searchsorted(ends, token_n, side="right")
    return reader.read(shard_n, token_n - np.concatenate([[0], ends])[shard_n])


def _restore(trainer: SaeTrainer, checkpoints: Checkpoints, rank: int) -> list[dict[str, float]]:
    """Load the newest checkpoint into the trainer and return the history up to it."""
    # Rank 0 chooses: a run beside this one may save another while the ranks look for it.
    name = ray.train.collective.broadcast_from_rank_zero(checkpoints.newest())
    if name is None:
        return []
    with checkpoints.fetched(name) as files:
        state = torch.load(files / STATE_FILE, map_location="cpu", weights_only=True)
    trainer.load_state_dict(state["trainer"])
    if rank == 0:
        sys.stdout.write(f"train: goes on from step {trainer.steps_done}\n")
        sys.stdout.flush()
    history: list[dict[str, float]] = state["history"]
    return history


def _save(trainer: SaeTrainer, history: list[dict[str, float]], checkpoints: Checkpoints) -> None:
    """Publish a checkpoint: every rank has the same state, so one of them writes it."""
    token = uuid.uuid4().hex
    state = {"trainer": trainer.state_dict(copies=False), "history": history}
    # torch refuses to open names that begin with a dot itself.
    with (checkpoints.directory / token).writing(STATE_FILE) as path, path.open("wb") as file:
        torch.save(state, file)
    checkpoints.publish(token, trainer.steps_done)


def _write_outcome(
    task: TrainTask, trainer: SaeTrainer, history: list[dict[str, float]], reader: CacheReader
) -> None:
    """Write the finished SAE, its training curve, and how well it does on held-out tokens."""
    sae = trainer.finished_sae()
    metadata = {
        # Without the directories: where a model lies on one machine concerns nobody else.
        "model_name": Path(task.model.path).name,
        "hook_name": f"resid_post.{task.model.layer}",
        "raysae_id": task.artifact.id,
    }
    outcome = Outcome(task.artifact)
    files = outcome.new_try()
    with tempfile.TemporaryDirectory(prefix="raysae-sae-") as temporary:
        save_saelens(sae, Path(temporary), metadata)
        for name in SAE_FILES:
            files.upload(Path(temporary) / name, name)
    health = _health(task, sae, reader)
    files.put_bytes(HISTORY_FILE, to_json({"points": history}))
    files.put_bytes(HEALTH_FILE, to_json(health))
    outcome.claim(files, {"health": health})


def _health(task: TrainTask, sae: Sae, reader: CacheReader) -> dict[str, Any]:
    """Measure the finished SAE on held-out tokens."""
    health = SaeHealth(sae.d_in, sae.d_sae)
    shards = range(len(task.trained_rows), len(task.shard_rows)) if task.held_out else [0]
    tokens_left = HEALTH_TOKENS
    for shard in shards:
        for start in range(0, min(task.shard_rows[shard], tokens_left), task.sae.batch_tokens):
            stop = min(start + task.sae.batch_tokens, task.shard_rows[shard])
            tokens = reader.read_rows(shard, np.arange(start, stop))
            health.measure(sae, tokens.acts_nd, tokens.modality_n)
            tokens_left -= len(tokens)
    return {"held_out": task.held_out > 0, **health.summary()}


def _print_progress(point: dict[str, float], steps: int) -> None:
    """Print one line of the training curve."""
    sys.stdout.write(
        f"train: step {point['step']:,.0f}/{steps:,}, loss {point['loss']:.4g}, "
        f"fvu {point['fvu']:.3f}, l0 {point['l0']:.1f}, dead {point['dead_share']:.1%}\n"
    )
    sys.stdout.flush()


def _print_health(health: dict[str, Any]) -> None:
    """Print how well the SAE does, by modality."""
    where = "held-out tokens" if health["held_out"] else "training tokens (one shard only)"
    sys.stdout.write(f"train: the SAE on {where}\n")
    for group in ("all", "text", "image"):
        if group not in health:
            raise DataError(f"train: {HEALTH_FILE} lacks {group!r}; delete the SAE and run again.")
        numbers = {name: as_number(value) for name, value in health[group].items()}
        sys.stdout.write(
            f"  {group:6} {numbers['tokens']:>9,.0f} tokens  l0 {numbers['l0']:.1f}  "
            f"fvu {numbers['fvu']:.3f}  alive {numbers['alive_share']:.1%}\n"
        )
