"""TRL's trainer with a resume that keeps the weights, and the callback that watches it.

Importing this module imports torch, transformers and TRL: about 10 s and 0.5 GB.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from trl import DPOTrainer

from raysae.finetune.metrics import check_loss

if TYPE_CHECKING:
    from raysae.finetune.trainer import OnCheckpoint


class PreferenceTrainer(DPOTrainer):
    """DPO whose weights are restored by whoever built it.

    transformers saves LLaVA-NeXT under legacy names and restores with `strict=False`: nothing
    matches, a warning is logged, and training goes on from the first weights. So the policy is
    loaded from the checkpoint before the trainer is built, DeepSpeed restores its own engine, and
    only LoRA's adapters are left to transformers.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        from peft import PeftModel

        if isinstance(model if model is not None else self.model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)


class TrainingWatcher(TrainerCallback):
    """Stops on a loss that is not a number, and hands every checkpoint on."""

    def __init__(self, on_checkpoint: OnCheckpoint | None) -> None:
        self._on_checkpoint = on_checkpoint
        self._last: dict[str, float] = {}

    def on_log(
        self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Check a step's loss, and print it on rank 0."""
        if not logs or "loss" not in logs:
            return
        check_loss(state.global_step, float(logs["loss"]))
        margin = float(logs.get("rewards/margins", 0.0))
        self._last = {"loss": float(logs["loss"]), "reward_margin": margin}
        if state.is_world_process_zero:
            sys.stdout.write(
                f"finetune: step {state.global_step}/{state.max_steps}, "
                f"loss {self._last['loss']:.4f}, reward margin {margin:.4f}\n"
            )
            sys.stdout.flush()

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Report a checkpoint, on every rank."""
        if self._on_checkpoint is not None:
            directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self._on_checkpoint(directory, {"step": float(state.global_step), **self._last})
