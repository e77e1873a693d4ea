"""Hidden states to SAE: data-parallel ranks under Ray Train, each on its slice of every batch."""

from __future__ import annotations

import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.collective
import ray.train.torch
import torch

from raysae.artifacts import Artifact
from raysae.errors import DataError
from raysae.models import ModelSettings
from raysae.sae import SAE_FILES, Ranks, Sae, SaeHealth, SaeSettings, SaeTrainer, save_saelens
from raysae.stages._cached_tokens import cached_source
from raysae.stages._checkpoints import Checkpoints
from raysae.stages._outcome import Outcome, finishing
from raysae.stages._progress import duration
from raysae.stages._ranks import RankPlan, run_ranks
from raysae.stages._streamed_tokens import streamed_source
from raysae.stages._tokens import RankTokens, TokenSource
from raysae.stages.chain import Chain, TrainRunSettings
from raysae.stages.result import StageResult
from raysae.storage import as_number, to_json

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
        tokens: Where its tokens come from.
        sae: What to train.
        model: What the hidden states are of; noted in the SAE's file.
        run: Ranks and checkpoints.
    """

    artifact: Artifact
    tokens: TokenSource
    sae: SaeSettings
    model: ModelSettings
    run: TrainRunSettings


def run_train(chain: Chain) -> StageResult:
    """Train the SAE on hidden states, from its last checkpoint if there is one.

    Raises:
        SettingsError: Ranks and the model's actors can never run at the same time.
        DataError: The cache is empty or damaged, too many rows cannot be used, or training
            diverged.
    """
    artifact = chain.sae
    # First, so that nobody removes the cache as used up while its metadata is read, or the snapshot
    # before it is looked up.
    artifact.begin()
    started = time.monotonic()
    with finishing(artifact) as outcome:
        resumed = outcome.read() is not None or Checkpoints(outcome.work / CHECKPOINTS).newest()
        task = _train_task(chain)
        if outcome.read() is None:
            run_ranks(_train_rank, {"task": task}, _rank_plan(task.run))
        told = task.tokens.told()
        outcome.finish(lambda about: _metadata(task, started, told, about["health"]))
    metadata = artifact.metadata()
    _print_health(metadata["health"])
    return StageResult(metadata["rows"], metadata["rejected"], bool(resumed))


def _metadata(
    task: TrainTask, started: float, told: dict[str, Any], health: dict[str, Any]
) -> dict[str, Any]:
    """Return what the SAE's metadata tells."""
    return {
        **told,
        "tokens": task.sae.steps * task.sae.batch_tokens,
        "d_in": task.tokens.d_in,
        "workers": task.run.workers,
        "health": health,
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


def _train_task(chain: Chain) -> TrainTask:
    """Gather what training needs."""
    settings = chain.settings
    tokens = streamed_source(chain) if settings.reading.stream else cached_source(chain)
    return TrainTask(chain.sae, tokens, settings.sae, settings.model, settings.train)


def _train_rank(config: dict[str, Any]) -> None:
    """Train one rank: what Ray Train calls in every worker, again after a restart."""
    task: TrainTask = config["task"]
    outcome = Outcome(task.artifact)
    # Rank 0 decides for all: a run beside this one may be the first meanwhile.
    if ray.train.collective.broadcast_from_rank_zero(outcome.is_there()):
        return
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    checkpoints = Checkpoints(outcome.work / CHECKPOINTS)
    training = _Training(task, ranks)
    state = _newest_state(checkpoints)
    if state is not None:
        training.restore(state)
    if training.steps_done < task.sae.steps:
        positions = None if state is None else state.get("positions")
        with task.tokens.opened(ranks, task.sae.batch_tokens, positions) as tokens:
            if state is None:
                training.begin(tokens.start_sample())
            _take_steps(training, tokens, checkpoints)
    if ranks.rank == 0:
        _write_outcome(training)


class _Training:
    """One rank's training.

    Args:
        task: What is trained.
        ranks: This rank and the number of all.

    Attributes:
        history: Points of the training curve.
    """

    def __init__(self, task: TrainTask, ranks: Ranks) -> None:
        self.task = task
        self.ranks = ranks
        self.history: list[dict[str, float]] = []
        self._trainer: SaeTrainer | None = None

    @property
    def trainer(self) -> SaeTrainer:
        """The trainer, once `begin` or `restore` was called."""
        assert self._trainer is not None
        return self._trainer

    @property
    def steps_done(self) -> int:
        """Steps so far."""
        return 0 if self._trainer is None else self._trainer.steps_done

    def begin(self, start_sample: torch.Tensor) -> None:
        """Start anew, from a sample of hidden states."""
        self._trainer = SaeTrainer(
            self.task.sae,
            self.task.tokens.d_in,
            ray.train.torch.get_device(),
            start_sample,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        # Whatever a sample decides is in the checkpoint.
        self.begin(torch.ones(1, self.task.tokens.d_in))
        self.trainer.load_state_dict(state["trainer"])
        self.history = state["history"]
        if self.ranks.rank == 0:
            sys.stdout.write(f"train: goes on from step {self.steps_done}\n")
            sys.stdout.flush()


def _take_steps(training: _Training, tokens: RankTokens, checkpoints: Checkpoints) -> None:
    """Take the steps that are left, with a checkpoint now and then."""
    task, ranks, trainer = training.task, training.ranks, training.trainer
    history, steps = training.history, training.task.sae.steps
    log_every = max(1, steps // LOG_POINTS)
    first, started = trainer.steps_done, time.monotonic()
    for batch in tokens.batches(trainer.steps_done, steps):
        trainer.step(batch.acts_nd, batch.modality_n)
        done, last = trainer.steps_done, trainer.steps_done == steps
        if done % log_every == 0 or last:
            history.append(trainer.metrics())
            if ranks.rank == 0 and (len(history) % 10 == 0 or last):
                pace = (time.monotonic() - started) / (done - first)
                _print_progress(history[-1], steps, pace * (steps - done))
        if done % task.run.checkpoint_every == 0 or last:
            positions = _gathered(tokens.position(), ranks)
            if ranks.rank == 0:
                _save(training, positions, checkpoints)


def _newest_state(checkpoints: Checkpoints) -> dict[str, Any] | None:
    """Load the newest checkpoint, if there is one."""
    # Rank 0 chooses: a run beside this one may save another while the ranks look for it.
    name = ray.train.collective.broadcast_from_rank_zero(checkpoints.newest())
    if name is None:
        return None
    with checkpoints.fetched(name) as files:
        state = torch.load(files / STATE_FILE, map_location="cpu", weights_only=True)
    assert isinstance(state, dict)
    return state


def _gathered(position: list[int], ranks: Ranks) -> list[list[int]]:
    """Return the position of every rank, in every rank."""
    if not position:
        return []
    positions_rp = torch.zeros(
        ranks.world_size, len(position), dtype=torch.int64, device=ray.train.torch.get_device()
    )
    positions_rp[ranks.rank] = torch.tensor(position)
    ranks.sum_in_place([positions_rp])
    gathered: list[list[int]] = positions_rp.tolist()
    return gathered


def _save(training: _Training, positions: list[list[int]], checkpoints: Checkpoints) -> None:
    """Publish a checkpoint: every rank has the same state, so one of them writes it."""
    token = uuid.uuid4().hex
    state = {
        "trainer": training.trainer.state_dict(copies=False),
        "history": training.history,
        "positions": positions,
    }
    # torch refuses to open names that begin with a dot itself.
    with (checkpoints.directory / token).writing(STATE_FILE) as path, path.open("wb") as file:
        torch.save(state, file)
    checkpoints.publish(token, training.steps_done)


def _write_outcome(training: _Training) -> None:
    """Write the finished SAE, its training curve, and how well it does on held-out tokens."""
    task, sae = training.task, training.trainer.finished_sae()
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
    health = _health(task, sae)
    files.put_bytes(HISTORY_FILE, to_json({"points": training.history}))
    files.put_bytes(HEALTH_FILE, to_json(health))
    outcome.claim(files, {"health": health})


def _health(task: TrainTask, sae: Sae) -> dict[str, Any]:
    """Measure the finished SAE on held-out tokens."""
    health = SaeHealth(sae.d_in, sae.d_sae)
    for tokens in task.tokens.judged(task.sae.batch_tokens):
        health.measure(sae, tokens.acts_nd, tokens.modality_n)
    return {"held_out": task.tokens.held_out > 0, **health.summary()}


def _print_progress(point: dict[str, float], steps: int, left_s: float) -> None:
    """Print one line of the training curve, and how many seconds are left."""
    left = f", {duration(left_s)} left" if point["step"] < steps else ""
    sys.stdout.write(
        f"train: step {point['step']:,.0f}/{steps:,}, loss {point['loss']:.4g}, "
        f"fvu {point['fvu']:.3f}, l0 {point['l0']:.1f}, dead {point['dead_share']:.1%}{left}\n"
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
