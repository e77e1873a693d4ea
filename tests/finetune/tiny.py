"""A tiny model to fine-tune, preference samples, and training outside Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from raysae.finetune import (
    FinetuneRunSettings,
    FinetuneSettings,
    TrainingTask,
    row_rules,
    training_processor,
    write_preferences,
)
from raysae.sample import ImagePart, Message, Sample, TextPart
from tests.models.tiny import build_model, encode, picture, save_model

RUN = FinetuneRunSettings(per_device_batch=2, checkpoint_steps=2)
WORDS = ("cat", "dog", "tree", "house", "red", "green", "small", "large", "old", "new")


def save_tiny_model(directory: Path, template: str | None = None) -> Path:
    """Save a random model; all weights are scaled so that a few steps change the answers."""
    save_model(build_model(), directory)
    if template is not None:
        (directory / "chat_template.jinja").write_text(template)
    return directory


def preference_sample(number: int, **changes: Any) -> Sample:
    """A pair about one random picture; sizes and texts differ from row to row."""
    rng = np.random.default_rng(number)
    width, height = (int(size) for size in rng.integers(20, 70, 2))
    better, worse = (" ".join(rng.choice(WORDS, size)) for size in (3, 5))
    turn = Message("user", (ImagePart(0), TextPart(f"What is shown in picture {number}?")))
    image = encode(picture(width, height, seed=number))
    sample = Sample(f"row-{number}", number, (turn,), (image,), better, worse)
    return replace(sample, **changes)


def settings_for(model: Path, **changes: Any) -> FinetuneSettings:
    """Settings of a few tiny steps."""
    return replace(
        FinetuneSettings(
            model=str(model),
            max_steps=4,
            global_batch=4,
            lr=1e-3,
            warmup_steps=0,
            scheduler="linear",
            zero_stage=0,
            eval_fraction=0.0,
        ),
        **changes,
    )


def write_rows(model: Path, path: Path, rows: int) -> Path:
    """Write preference rows for a model."""
    rules = row_rules(training_processor(model), max_tokens=4096)
    write_preferences([preference_sample(number) for number in range(rows)], path, rules)
    return path


def task_for(
    model: Path, rows: Path, output: Path, run: FinetuneRunSettings = RUN, **changes: Any
) -> TrainingTask:
    """A training task of a few tiny steps."""
    return TrainingTask(settings_for(model, **changes), run, model, rows, output)


def forget_accelerate() -> None:
    """Let the next trainer of this process have other settings than the last one."""
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    unset_hf_deepspeed_config()
