"""Fine-tuning under Ray Train: preference rows in, a tuned model's checkpoint out.

Layout of the artifact's directory: the checkpoint's own files, `spec.json`, `metadata.json`, and,
as long as it is unfinished, `work/`:

    mesh.json            how many ranks an interrupted run had
    preferences.*        the checked rows
    checkpoints/         as `raysae.stages._checkpoints` keeps them
    try-*/, outcome.json a tuned model before it is published, see `raysae.stages._outcome`

Running again after a kill goes on from the last checkpoint.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from raysae.artifacts import Artifact
from raysae.errors import SettingsError
from raysae.finetune import (
    FinetuneRunSettings,
    FinetuneSettings,
    TrainingTask,
    check_model,
    row_rules,
    train,
    training_processor,
    write_preferences,
)
from raysae.sample import Rejection, Sample
from raysae.stages._checkpoints import Checkpoints
from raysae.stages._outcome import Outcome, finishing
from raysae.stages._pool import check_rejected
from raysae.stages._ranks import RankPlan, run_ranks
from raysae.storage import Directory, to_json

Samples = Iterable[Sample | Rejection]

CHECKPOINTS = "checkpoints"
MESH_FILE = "mesh.json"
PREFERENCES_FILE = "preferences.arrow"
COUNTS_FILE = "preferences.json"


@dataclass(frozen=True)
class RankTask:
    """All that a rank needs to know.

    Attributes:
        settings: What decides the result.
        run: Workers, devices, retries.
        model: The first weights.
        artifact: Where the result goes.
    """

    settings: FinetuneSettings
    run: FinetuneRunSettings
    model: Path
    artifact: Artifact


def run_finetune(
    settings: FinetuneSettings,
    run: FinetuneRunSettings,
    samples: Samples | Callable[[], Samples],
    artifact: Artifact,
) -> dict[str, Any]:
    """Fine-tune a model on a subset, or go on where an earlier run was stopped.

    Args:
        settings: What decides the result.
        run: Workers, devices, retries.
        samples: The subset's rows, in order: an iterable, or a function that opens one. It is read
            only if no earlier run has checked the rows already.
        artifact: Where the result goes. The checkpoint's files lie directly in its directory, so
            that `from_pretrained` opens it.

    Returns:
        The artifact's metadata: besides what every artifact has, `counts` (`rows`, `rejected`,
        `train_rows`, `eval_rows`), `rejected` by reason, `rejections`, `steps` (one entry per
        step), `held_out` (preference accuracy before and after), `resumed_at_step`, `files`,
        `seconds`.

    Raises:
        SettingsError: The model, the batch or the workers do not fit, or an interrupted run had
            other workers.
        DataError: Too few rows are usable, or the loss stopped being a number.
    """
    if artifact.is_finished():
        return artifact.metadata()
    started = time.monotonic()
    from raysae.models.checkpoint import model_directory

    run.accumulation(settings)
    model = model_directory(settings.model, "finetune.model").absolute()
    check_model(model, settings)
    artifact.begin()
    with finishing(artifact) as outcome:
        _check_mesh(outcome.work, run)
        counts = _prepare_rows(settings, run, samples, model, outcome.work)
        prepared = {"settings": asdict(settings), "run": asdict(run), **counts}
        if outcome.read() is None:
            _fit(RankTask(settings, run, model, artifact))
        outcome.finish(lambda result: _metadata(prepared, result, started))
    return artifact.metadata()


def _check_mesh(work: Directory, run: FinetuneRunSettings) -> None:
    """Refuse to go on with other workers: their checkpoints hold one file per rank.

    Raises:
        SettingsError: The interrupted run had another number of workers or another micro-batch.
    """
    mesh = {"workers": run.workers, "per_device_batch": run.per_device_batch}
    if work.create(MESH_FILE, to_json(mesh)):
        return
    stored = work.read_json(MESH_FILE)
    if stored != mesh:
        raise SettingsError(
            f"tune.workers: an interrupted run in {work} had tune.workers "
            f"{stored['workers']} and tune.per_device_batch {stored['per_device_batch']}, got "
            f"{run.workers} and {run.per_device_batch}; run with the same or delete that directory "
            "to start over."
        )


def _prepare_rows(
    settings: FinetuneSettings,
    run: FinetuneRunSettings,
    samples: Samples | Callable[[], Samples],
    model: Path,
    work: Directory,
) -> dict[str, Any]:
    """Check the rows and write them for the ranks, unless an earlier run has; return the counts."""
    if not work.exists(COUNTS_FILE):
        opened = samples() if callable(samples) else samples
        rules = row_rules(training_processor(model), settings.max_tokens)
        with work.writing(PREFERENCES_FILE) as path:
            counts = write_preferences(opened, path, rules)
        work.put_json(
            COUNTS_FILE,
            {
                "rows": counts.rows,
                "rejected": counts.rejected,
                "rejections": [asdict(rejection) for rejection in counts.rejections],
            },
        )
    written = work.read_json(COUNTS_FILE)
    total = {"rows": written["rows"], "rejected": len(written["rejections"])}
    check_rejected(
        "finetune",
        total,
        run.max_rejected_fraction,
        written["rejected"],
        setting="tune.max_rejected_fraction",
    )
    sys.stdout.write(f"finetune: {total['rows']:,} rows, {total['rejected']:,} rejected\n")
    sys.stdout.flush()
    return written


def _fit(task: RankTask) -> None:
    """Start the ranks and wait for them; a lost rank restarts all from the last checkpoint."""
    run = task.run
    plan = RankPlan(
        workers=run.workers,
        cpus=run.cpus_per_worker,
        gpus=int(run.use_gpu),
        max_failures=run.max_retries,
        settings=("tune.workers", "tune.cpus_per_worker", "tune.use_gpu"),
    )
    run_ranks(_train_rank, {"task": task}, plan)


def _train_rank(config: dict[str, Any]) -> None:
    """Train on one rank, inside a Ray Train worker."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    import ray.train.collective

    # Ray Train's log level does not reach loggers outside of it.
    logging.getLogger().setLevel(logging.WARNING)
    task: RankTask = config["task"]
    outcome, rank = Outcome(task.artifact), ray.train.get_context().get_world_rank()
    checkpoints = Checkpoints(outcome.work / CHECKPOINTS)
    # Rank 0 chooses: a run beside this one may save another while the ranks look for it.
    name, done = ray.train.collective.broadcast_from_rank_zero(
        (checkpoints.newest(), outcome.is_there())
    )
    if done:
        return  # A rank was lost after rank 0 had written the model, or another run was first.
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raysae-finetune-")))
        rows = stack.enter_context(outcome.work.fetched([PREFERENCES_FILE]))
        restored = stack.enter_context(checkpoints.fetched(name)) if name else None
        training = TrainingTask(
            task.settings, task.run, task.model, rows / PREFERENCES_FILE, scratch / "model"
        )
        keep = partial(_keep_checkpoint, checkpoints)
        result = train(training, scratch / "trainer", restored, keep)
        if rank == 0:
            claim_result(outcome, training.output, result)


def _keep_checkpoint(
    checkpoints: Checkpoints, directory: Path, metrics: Mapping[str, float]
) -> None:
    """Put this rank's part of a checkpoint to the others', and publish it when all are there.

    Every rank has its own directory that holds only its own files.
    """
    import ray.train.collective

    token = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    checkpoints.put(token, directory)
    ray.train.collective.barrier()
    if ray.train.get_context().get_world_rank() == 0:
        checkpoints.publish(token, int(metrics["step"]))


def claim_result(outcome: Outcome, model: Path, result: Mapping[str, Any]) -> None:
    """Put a tuned model into the storage and say that it is complete.

    Args:
        outcome: The artifact's.
        model: A local directory.
        result: What `raysae.finetune.train` returned.
    """
    files = outcome.new_try()
    for file in sorted(model.iterdir()):
        files.upload(file, file.name)
    outcome.claim(files, result)


def _metadata(
    prepared: Mapping[str, Any], result: Mapping[str, Any], started: float
) -> dict[str, Any]:
    """Return what the tuned model's metadata tells."""
    told = ("train_rows", "eval_rows", "steps", "held_out", "resumed_at_step")
    return {
        "settings": prepared["settings"],
        "run": prepared["run"],
        "rows": prepared["rows"],
        "rejected": len(prepared["rejections"]),
        "rejections": prepared["rejected"],
        "rejected_rows": prepared["rejections"],
        **{key: result[key] for key in told},
        "seconds": round(time.monotonic() - started, 1),
    }
