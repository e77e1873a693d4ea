"""Fine-tuning under Ray Train: preference rows in, a tuned model's checkpoint out.

Layout of the artifact's directory: the checkpoint's own files, `spec.json`, `metadata.json`, and,
as long as it is unfinished, `work/`: the checked rows, Ray Train's checkpoints, and the tuned model
before it is published. Running again after a kill goes on from the last checkpoint.
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
from contextlib import nullcontext
from dataclasses import asdict
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
from raysae.stages._pool import check_rejected, unwrapped_errors
from raysae.stages.connection import connect
from raysae.storage import put_file, put_json

Samples = Iterable[Sample | Rejection]


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
    if not (work / "result.json").exists():
        task = TrainingTask(
            settings, run, model, work / "preferences.arrow", work / f"model-{uuid.uuid4().hex}"
        )
        _forget_damaged_checkpoints(work / "ray" / "training")
        try:
            _fit(task, work)
        except Exception:
            if not artifact.is_finished():
                raise
        if artifact.is_finished():
            # A run beside this one was the first, and has cleared the work of both away.
            shutil.rmtree(work, ignore_errors=True)
            return artifact.metadata()
    settled = {"settings": asdict(settings), "run": asdict(run)}
    return _publish(artifact, work, {**settled, **counts}, started)


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


def _fit(task: TrainingTask, work: Path) -> None:
    """Start the ranks and wait for them; a failed rank restarts all from the last checkpoint."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    connect()
    run = task.run
    trainer = TorchTrainer(
        _train_rank,
        train_loop_config={"task": task, "result": work / "result.json"},
        torch_config=TorchConfig(backend="nccl" if run.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=run.workers,
            use_gpu=run.use_gpu,
            resources_per_worker={"CPU": run.cpus_per_worker, "GPU": float(run.use_gpu)},
        ),
        run_config=ray.train.RunConfig(
            # The fixed name is what makes a new job find an interrupted one's checkpoints.
            name="training",
            storage_path=str(work / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=run.max_retries),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    with unwrapped_errors():
        trainer.fit()


def _forget_damaged_checkpoints(directory: Path) -> None:
    """Start over, and say so, where Ray Train could not even begin to go on.

    It writes its list of checkpoints in place: a machine that is lost at that moment leaves half of
    it, and every later run would fail on that.
    """
    path = directory / "checkpoint_manager_snapshot.json"
    if not path.exists():
        return
    try:
        names = [entry["checkpoint_dir_name"] for entry in read_json(path)["checkpoint_results"]]
        damaged = not all((directory / name).is_dir() for name in names)
    except (DataError, KeyError, TypeError):
        damaged = True
    if damaged:
        sys.stdout.write(f"finetune: the checkpoints in {directory} are damaged; starting over\n")
        shutil.rmtree(directory)


def _train_rank(config: dict[str, Any]) -> None:
    """Train on one rank, inside a Ray Train worker."""
    os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
    import ray.train

    # Ray Train's log level does not reach the logger that tells of every checkpoint.
    logging.getLogger().setLevel(logging.WARNING)
    task: TrainingTask = config["task"]
    checkpoint = ray.train.get_checkpoint()
    with (
        tempfile.TemporaryDirectory(prefix="raysae-finetune-") as scratch,
        checkpoint.as_directory() if checkpoint else nullcontext(None) as restored,
    ):
        result = train(
            task, Path(scratch), Path(restored) if restored else None, _report_checkpoint
        )
    if ray.train.get_context().get_world_rank() == 0:
        put_json(config["result"], {**result, "model": task.output.name})


def _report_checkpoint(directory: Path, metrics: Mapping[str, float]) -> None:
    """Hand a checkpoint to Ray Train.

    Every rank has its own directory that holds only its own files, so nothing is uploaded twice and
    Ray merges them into one.
    """
    import ray.train

    ray.train.report(
        dict(metrics),
        checkpoint=ray.train.Checkpoint.from_directory(str(directory)),
        delete_local_checkpoint_after_upload=True,
    )


def _publish(
    artifact: Artifact, work: Path, prepared: Mapping[str, Any], started: float
) -> dict[str, Any]:
    """Move the tuned model's files into place, finish the artifact, and clear the work away."""
    result = read_json(work / "result.json")
    model = work / result.pop("model")
    files = result.get("files") or sorted(file.name for file in model.iterdir())
    put_json(work / "result.json", {**result, "model": model.name, "files": files})
    for name in files:
        # Those that are gone were moved by a run that was killed here.
        if (model / name).exists():
            put_file(model / name, artifact.directory / name)
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
            "files": files,
            "seconds": round(time.monotonic() - started, 1),
        }
    )
    shutil.rmtree(work, ignore_errors=True)
    return artifact.metadata()
