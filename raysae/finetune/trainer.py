"""One rank's training: TRL's DPO trainer with every default that spoils it replaced."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysae.finetune.data import open_preferences
from raysae.finetune.deepspeed_config import MAX_GRAD_NORM, deepspeed_config, start_deepspeed
from raysae.finetune.export import save_tuned
from raysae.finetune.metrics import held_out_metrics, step_metrics
from raysae.finetune.model import load_policy, load_reference, lora_config
from raysae.finetune.order import reading_order, split_rows
from raysae.finetune.processor import training_processor
from raysae.finetune.settings import FinetuneRunSettings, FinetuneSettings
from raysae.storage import read_json

OnCheckpoint = Callable[[Path, Mapping[str, float]], None]
"""Takes a rank's checkpoint directory and the last step's metrics."""


@dataclass(frozen=True)
class TrainingTask:
    """What a rank trains, and where it puts the result.

    Attributes:
        settings: What decides the result.
        run: How it is computed.
        model: The first weights' directory, on every node.
        preferences: A file of `write_preferences`, on every node.
        output: Directory for the tuned model's files; rank 0 writes it.
    """

    settings: FinetuneSettings
    run: FinetuneRunSettings
    model: Path
    preferences: Path
    output: Path


def train(
    task: TrainingTask,
    scratch: Path,
    checkpoint: Path | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> dict[str, Any]:
    """Train to the end, measure the held-out rows, and write the tuned model; every rank calls it.

    Args:
        task: The same on all ranks.
        scratch: This rank's own empty directory; checkpoints are written below it.
        checkpoint: A checkpoint of the same task and number of ranks, holding all ranks' files.
        on_checkpoint: Called on every rank after each checkpoint; may move the directory away.

    Returns:
        `steps` (a list with one entry per optimizer step, those before a resume included),
        `held_out` (see `held_out_metrics`, empty without held-out rows), `train_rows`, `eval_rows`,
        `resumed_at_step` (0 for a run from the start).

    Raises:
        DataError: The loss stopped being a number.
    """
    settings = task.settings
    # Read now: the checkpoint may be deleted as soon as a newer one is there.
    resumed_at_step = checkpoint_step(checkpoint) if checkpoint else 0
    _quieten()
    if settings.zero_stage:
        start_deepspeed(task.run.use_gpu)
    rows = open_preferences(task.preferences)
    train_rows, eval_rows = split_rows(len(rows), settings.eval_fraction, settings.seed)
    steps = settings.steps(len(train_rows))
    order = reading_order(len(train_rows), steps, settings.global_batch, settings.seed)
    ordered = rows.select(train_rows[order])
    trainer = build_trainer(
        task, ordered, scratch, checkpoint=checkpoint, on_checkpoint=on_checkpoint
    )
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    held_out = held_out_metrics(trainer, rows.select(eval_rows), settings.beta)
    save_tuned(trainer, task.model, task.output, settings)
    return {
        "steps": step_metrics(trainer.state.log_history),
        "held_out": held_out,
        "train_rows": len(train_rows),
        "eval_rows": len(eval_rows),
        "resumed_at_step": resumed_at_step,
    }


def _quieten() -> None:
    """Drop what is printed of every training and means nothing.

    Progress bars; deprecations that TRL causes in transformers at every step; accelerate's warning
    that DeepSpeed accumulates gradients, which it is told to.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.accelerator").addFilter(
        lambda record: "Gradient accumulation steps mismatch" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl)\.")


def checkpoint_step(checkpoint: Path) -> int:
    """Return how many optimizer steps a checkpoint has behind it."""
    return int(read_json(checkpoint / "trainer_state.json")["global_step"])


def build_trainer(
    task: TrainingTask,
    ordered_rows: Any,
    scratch: Path,
    *,
    checkpoint: Path | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> Any:
    """Build the trainer.

    Args:
        task: As for `train`.
        ordered_rows: Dataset with the rows in the order in which they are to be seen, once.
        scratch: As for `train`.
        checkpoint: As for `train`; its weights are loaded here, because transformers' own resume
            would silently leave the first ones in place (see `load_policy`).
        on_checkpoint: As for `train`.
    """
    from transformers import PrinterCallback

    from raysae.finetune.preference_trainer import PreferenceTrainer, TrainingWatcher

    settings = task.settings
    steps = len(ordered_rows) // settings.global_batch
    # Before the models: under ZeRO-3 this makes from_pretrained cut the weights as they come.
    arguments = training_arguments(settings, task.run, steps, scratch)
    plain = not settings.zero_stage and not settings.lora_rank
    trainer = PreferenceTrainer(
        model=load_policy(checkpoint if checkpoint and plain else task.model, settings),
        ref_model=load_reference(task.model, settings),
        args=arguments,
        train_dataset=ordered_rows,
        processing_class=training_processor(task.model),
        peft_config=lora_config(settings),
        callbacks=[TrainingWatcher(on_checkpoint)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(
    settings: FinetuneSettings, run: FinetuneRunSettings, steps: int, scratch: Path
) -> Any:
    """Return TRL's arguments.

    What differs from its defaults, and why: `max_length=None`: a cut inside the image tokens
    raises. `bf16` follows `dtype`: TRL turns it on. `train_sampling_strategy="sequential"`:
    `reading_order` has decided. `logging_nan_inf_filter` off: it would log a loss that is not a
    number as 0. `optim="adamw_torch"`: DeepSpeed's own compile.
    """
    from trl import DPOConfig

    return DPOConfig(
        output_dir=str(scratch),
        max_steps=steps,
        per_device_train_batch_size=run.per_device_batch,
        per_device_eval_batch_size=run.per_device_batch,
        gradient_accumulation_steps=run.accumulation(settings),
        learning_rate=settings.lr,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=min(settings.warmup_steps, steps),
        weight_decay=0.0,
        max_grad_norm=MAX_GRAD_NORM,
        optim="adamw_torch",
        # A tower that is not frozen has blocks after the one whose output is used.
        ddp_find_unused_parameters=not settings.freeze_vision,
        beta=settings.beta,
        max_length=None,
        bf16=settings.dtype == "bfloat16",
        use_cpu=not run.use_gpu,
        deepspeed=deepspeed_config(settings, run),
        gradient_checkpointing=run.gradient_checkpointing,
        train_sampling_strategy="sequential",
        dataloader_num_workers=run.loader_processes,
        dataloader_pin_memory=run.use_gpu,
        save_strategy="steps",
        save_steps=run.checkpoint_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
    )
