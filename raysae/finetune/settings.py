"""Settings of fine-tuning: what decides the tuned model, and how the job runs.

Defaults suit the shipped model; the values of SAE-V (Lou et al., ICML 2025) and of Align-Anything's
own DPO are named beside each field that differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from raysae.errors import SettingsError


@dataclass(frozen=True)
class FinetuneSettings:
    """What decides the tuned model (Direct Preference Optimization on image-text pairs).

    A step's rows depend on `seed`, the step and `global_batch` alone, so that neither the number of
    workers nor their micro-batch changes which rows are seen together.

    Args:
        model: A shipped LLaVA-NeXT model's name, or a directory with `config.json`, safetensors, a
            tokenizer and a processor.
        max_steps: Optimizer steps; 0 lets `epochs` decide.
        epochs: Passes over the training rows when `max_steps` is 0 (paper: 3).
        global_batch: Preference pairs in one optimizer step, over all workers (paper: 8 × 4 = 32).
        lr: Peak learning rate of AdamW. The paper's 1e-6 is for 7 billion parameters and thousands
            of steps; it leaves the small shipped model unchanged after 20 steps, so the default is
            higher.
        scheduler: Shape of the learning rate after the warm-up (paper: cosine).
        warmup_steps: Steps of linear warm-up, at most `max_steps` (paper: 10).
        beta: DPO's β: how much the policy is held to the reference model (Align-Anything: 0.1).
        lora_rank: Rank of the LoRA adapters on the language model's linear layers; 0 trains all
            weights.
        zero_stage: DeepSpeed's ZeRO stage; 0 runs without DeepSpeed.
        freeze_vision: Leave the vision tower as it is (Align-Anything does).
        dtype: Numbers of the forward and backward pass and of the saved weights. The optimizer
            always keeps float32 masters, or steps of 1e-6 would be rounded away.
        max_tokens: Rows longer than this, image tokens included, are rejected and counted, never
            cut (paper: 4,096).
        eval_fraction: Share of the rows held out to measure preference accuracy before and after
            (paper: 0.1).
        seed: Decides the held-out rows, the order of the rows, and the adapters' first values.
    """

    model: str = "builtin-llava-next"
    max_steps: int = 20
    epochs: float = 3.0
    global_batch: int = 8
    lr: float = 1e-4
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup_steps: int = 2
    beta: float = 0.1
    lora_rank: int = 0
    zero_stage: Literal[0, 2, 3] = 2
    freeze_vision: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_tokens: int = 4096
    eval_fraction: float = 0.1
    seed: int = 42

    def __post_init__(self) -> None:
        _at_least("max_steps", self.max_steps, 0)
        _at_least("global_batch", self.global_batch, 1)
        _at_least("warmup_steps", self.warmup_steps, 0)
        _at_least("lora_rank", self.lora_rank, 0)
        _at_least("max_tokens", self.max_tokens, 1)
        _at_least("seed", self.seed, 0)
        _positive("lr", self.lr)
        _positive("beta", self.beta)
        if self.max_steps == 0:
            _positive("epochs", self.epochs)
        if not 0 <= self.eval_fraction < 1:
            raise SettingsError(
                f"finetune.eval_fraction: must lie in [0, 1), got {self.eval_fraction}."
            )
        _one_of("zero_stage", self.zero_stage, (0, 2, 3))
        _one_of("dtype", self.dtype, ("float32", "bfloat16"))
        _one_of("scheduler", self.scheduler, ("cosine", "linear", "constant_with_warmup"))

    def steps(self, train_rows: int) -> int:
        """Return the number of optimizer steps on `train_rows` rows."""
        return self.max_steps or max(1, math.ceil(self.epochs * train_rows / self.global_batch))


@dataclass(frozen=True)
class FinetuneRunSettings:
    """How fine-tuning runs: never part of an artifact's id.

    Args:
        workers: Ranks that train together, one process each (one GPU each with `use_gpu`).
        use_gpu: Train on GPUs with NCCL; otherwise on CPUs with gloo.
        cpus_per_worker: CPU cores that Ray reserves for each worker.
        per_device_batch: Pairs in one forward pass of one worker. `finetune.global_batch` must be a
            multiple of `workers × per_device_batch`; the rest is gradient accumulation.
        offload: What DeepSpeed keeps in host memory instead of on the GPU: nothing, the optimizer
            state (ZeRO 2 and 3), or the parameters too (ZeRO 3).
        gradient_checkpointing: Recompute activations in the backward pass: less memory, about 20 %
            slower.
        loader_processes: Processes per worker that decode and prepare images ahead; 0 does it
            between the steps.
        checkpoint_steps: Steps between two checkpoints: what a lost worker costs at most.
        max_retries: How often training goes on from its last checkpoint after a worker failed.
        max_rejected_fraction: The job fails with exit code 3 when more rows than this are rejected.
    """

    workers: int = 1
    use_gpu: bool = False
    cpus_per_worker: float = 1.0
    per_device_batch: int = 2
    offload: Literal["none", "optimizer", "optimizer+parameters"] = "none"
    gradient_checkpointing: bool = False
    loader_processes: int = 0
    checkpoint_steps: int = 10
    max_retries: int = 3
    max_rejected_fraction: float = 0.2

    def __post_init__(self) -> None:
        for name in ("workers", "per_device_batch", "checkpoint_steps"):
            _at_least(name, getattr(self, name), 1, group="tune")
        for name in ("loader_processes", "max_retries"):
            _at_least(name, getattr(self, name), 0, group="tune")
        _positive("cpus_per_worker", self.cpus_per_worker, group="tune")
        _one_of(
            "offload", self.offload, ("none", "optimizer", "optimizer+parameters"), group="tune"
        )
        if not 0 <= self.max_rejected_fraction <= 1:
            raise SettingsError(
                f"tune.max_rejected_fraction: must lie in [0, 1], got {self.max_rejected_fraction}."
            )

    def accumulation(self, settings: FinetuneSettings) -> int:
        """Return the forward passes of each worker in one optimizer step.

        Raises:
            SettingsError: The global batch cannot be cut into equal micro-batches, or the offload
                needs another ZeRO stage.
        """
        micro = self.workers * self.per_device_batch
        if settings.global_batch % micro:
            raise SettingsError(
                f"finetune.global_batch: {settings.global_batch} is no multiple of tune.workers × "
                f"tune.per_device_batch = {self.workers} × {self.per_device_batch}; change one of "
                "the three."
            )
        needed = {"none": 0, "optimizer": 2, "optimizer+parameters": 3}[self.offload]
        if settings.zero_stage < needed:
            raise SettingsError(
                f"tune.offload: {self.offload!r} needs finetune.zero_stage {needed} or more, got "
                f"{settings.zero_stage}."
            )
        return settings.global_batch // micro


def _at_least(name: str, value: int, least: int, group: str = "finetune") -> None:
    """Refuse a value below `least`."""
    if value < least:
        raise SettingsError(f"{group}.{name}: must be at least {least}, got {value}.")


def _positive(name: str, value: float, group: str = "finetune") -> None:
    """Refuse what is not a finite number above zero."""
    if not (value > 0 and math.isfinite(value)):
        raise SettingsError(f"{group}.{name}: must be a number above 0, got {value}.")


def _one_of(name: str, value: object, allowed: tuple[object, ...], group: str = "finetune") -> None:
    """Refuse what is not in the list (a YAML file can hold anything)."""
    if value not in allowed:
        listed = ", ".join(map(str, allowed))
        raise SettingsError(f"{group}.{name}: must be one of {listed}, got {value!r}.")
