"""Fine-tuning under Ray Train: preference rows in, a tuned model's checkpoint out.

Layout of the artifact's directory: the checkpoint's own files, `spec.json`, `metadata.json`, and,
as long as it is unfinished, `work/`:

    preferences.*        the checked rows
    checkpoints/step-*   one directory each, complete with the files of all ranks
    model-*              a tuned model before it is published, by one try of the ranks
    result.json          which of these is complete, with its files' sizes

Running again after a kill goes on from the last checkpoint.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from raysae.artifacts import Artifact, read_json
from raysae.errors import DataError, SettingsError
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
from raysae.stages._checkpoints import move_files, newest_checkpoint, publish_checkpoint
from raysae.stages._pool import check_rejected
from raysae.stages._ranks import RankPlan, run_ranks
from raysae.storage import TEMPORARY_PREFIX, put_file, put_json

Samples = Iterable[Sample | Rejection]

CHECKPOINTS = "checkpoints"
RESULT_FILE = "result.json"


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
        artifact: Where the result goes; its directory must be on a disk that every node sees. The
            checkpoint's files lie directly in it, so that `from_pretrained` opens the directory.

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
    work = artifact.directory / "work"
    _check_mesh(work / "mesh.json", run)
    counts = _prepare_rows(settings, run, samples, model, work)
    prepared = {"settings": asdict(settings), "run": asdict(run), **counts}
    try:
        if not (work / RESULT_FILE).exists():
            _fit(TrainingTask(settings, run, model, work / "preferences.arrow", work / "model"))
        if not artifact.is_finished():
            _publish(artifact, work, prepared, started)
    except Exception:
        # A run beside this one may have been the first, and have cleared the work of both away.
        if not artifact.is_finished():
            raise
    shutil.rmtree(work, ignore_errors=True)
    return artifact.metadata()


def _check_mesh(path: Path, run: FinetuneRunSettings) -> None:
    """Refuse to go on with other workers: their checkpoints hold one file per rank.

    Raises:
        SettingsError: The interrupted run had another number of workers or another micro-batch.
    """
    mesh = {"workers": run.workers, "per_device_batch": run.per_device_batch}
    if not path.exists():
        put_json(path, mesh)
        return
    stored = read_json(path)
    if stored != mesh:
        raise SettingsError(
            f"tune.workers: an interrupted run in {path.parent} had tune.workers "
            f"{stored['workers']} and tune.per_device_batch {stored['per_device_batch']}, got "
            f"{run.workers} and {run.per_device_batch}; run with the same or delete that directory "
            "to start over."
        )


def _prepare_rows(
    settings: FinetuneSettings,
    run: FinetuneRunSettings,
    samples: Samples | Callable[[], Samples],
    model: Path,
    work: Path,
) -> dict[str, Any]:
    """Check the rows and write them for the ranks, unless an earlier run has; return the counts."""
    path = work / "preferences.json"
    if not path.exists():
        opened = samples() if callable(samples) else samples
        rules = row_rules(training_processor(model), settings.max_tokens)
        counts = write_preferences(opened, work / "preferences.arrow", rules)
        put_json(
            path,
            {
                "rows": counts.rows,
                "rejected": counts.rejected,
                "rejections": [asdict(rejection) for rejection in counts.rejections],
            },
        )
    written = read_json(path)
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


def _fit(task: TrainingTask) -> None:
    """Start the ranks and wait for them; a lost rank restarts all from the last checkpoint."""
    run = task.run
    plan = RankPlan(
        workers=run.workers,
        cpus=run.cpus_per_worker,
        gpus=int(run.use_gpu),
        max_failures=run.max_retries,
        settings=("tune.workers", "tune.cpus_per_worker", "tune.use_gpu"),
    )
    run_ranks(_train_rank, {"task": task}, plan, task.output.parent / "ray")


def _train_rank(config: dict[str, Any]) -> None:
    """Train on one rank, inside a Ray Train worker."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    import ray.train.collective

    # Ray Train's log level does not reach loggers outside of it.
    logging.getLogger().setLevel(logging.WARNING)
    task: TrainingTask = config["task"]
    work, rank = task.output.parent, ray.train.get_context().get_world_rank()
    # Rank 0 chooses: a run beside this one may save another while the ranks look for it.
    name, done = ray.train.collective.broadcast_from_rank_zero(
        (newest_checkpoint(work / CHECKPOINTS), (work / RESULT_FILE).exists())
    )
    if done:
        return  # Another rank was lost after rank 0 had written the tuned model.
    restored = work / CHECKPOINTS / name if name else None
    # No try ever writes into another one's directory: what a result names stays complete.
    task = replace(task, output=task.output.with_name(f"model-{uuid.uuid4().hex}"))
    with tempfile.TemporaryDirectory(prefix="raysae-finetune-") as scratch:
        result = train(task, Path(scratch), restored, partial(_keep_checkpoint, work))
    if rank == 0:
        write_result(work, task.output, result)


def _keep_checkpoint(work: Path, directory: Path, metrics: Mapping[str, float]) -> None:
    """Move this rank's part of a checkpoint to the others', and publish it when all are there.

    Every rank has its own directory that holds only its own files.
    """
    import ray.train.collective

    rank = ray.train.get_context().get_world_rank()
    token = ray.train.collective.broadcast_from_rank_zero(uuid.uuid4().hex)
    checkpoints = work / CHECKPOINTS
    incoming = checkpoints / f"{TEMPORARY_PREFIX}{token}"
    move_files(directory, incoming)
    ray.train.collective.barrier()
    if rank == 0:
        publish_checkpoint(incoming, checkpoints, int(metrics["step"]))


def write_result(work: Path, model: Path, result: Mapping[str, Any]) -> None:
    """Say which tuned model is complete, with its files' sizes, and what its training measured.

    Args:
        work: The artifact's work directory.
        model: A directory directly in it.
        result: What `raysae.finetune.train` returned.
    """
    files = {file.name: file.stat().st_size for file in sorted(model.iterdir())}
    put_json(work / RESULT_FILE, {**result, "model": model.name, "files": files})


def _publish(artifact: Artifact, work: Path, prepared: Mapping[str, Any], started: float) -> None:
    """Move the tuned model's files into place and finish the artifact."""
    result = read_json(work / RESULT_FILE)
    _move_model(work, result, artifact.directory)
    counts = {
        "rows": prepared["rows"],
        "rejected": len(prepared["rejections"]),
        "train_rows": result["train_rows"],
        "eval_rows": result["eval_rows"],
    }
    kept = ("steps", "held_out", "resumed_at_step")
    about = {key: prepared[key] for key in ("settings", "run", "rejected", "rejections")}
    artifact.finish(
        {
            **about,
            **{key: result[key] for key in kept},
            "counts": counts,
            "files": sorted(result["files"]),
            "seconds": round(time.monotonic() - started, 1),
        }
    )


def _move_model(work: Path, result: Mapping[str, Any], directory: Path) -> None:
    """Move the files of a complete model; a run that was killed here may have moved some.

    Raises:
        DataError: One of them is in neither place with its size.
    """
    model = work / result["model"]
    for name, size in result["files"].items():
        if not any(_has_size(place / name, size) for place in (model, directory)):
            raise DataError(
                f"{model / name} is missing or damaged, although {work / RESULT_FILE} lists it; "
                "delete that file and run again to go on from the last checkpoint."
            )
    for name, size in result["files"].items():
        if _has_size(model / name, size):
            put_file(model / name, directory / name)


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size
