"""DeepSpeed's configuration, and a start that compiles nothing on a CPU."""

from __future__ import annotations

import os
from typing import Any

from raysae.finetune.settings import FinetuneRunSettings, FinetuneSettings

MAX_GRAD_NORM = 1.0
"""Gradients are clipped to this norm, with and without DeepSpeed (transformers' default)."""


def deepspeed_config(settings: FinetuneSettings, run: FinetuneRunSettings) -> dict[str, Any] | None:
    """Return DeepSpeed's configuration, or None for ZeRO stage 0, which runs without DeepSpeed.

    The optimizer is torch's AdamW (`zero_allow_untested_optimizer`): DeepSpeed's own ones compile
    for minutes at first use. ZeRO-3 gathers the weights when it saves a model.

    Raises:
        SettingsError: The batch cannot be cut, see `FinetuneRunSettings.accumulation`.
    """
    accumulation = run.accumulation(settings)
    if settings.zero_stage == 0:
        return None
    zero: dict[str, Any] = {
        "stage": settings.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": run.use_gpu,
    }
    if settings.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if run.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": run.use_gpu}
    if run.offload == "optimizer+parameters":
        zero["offload_param"] = {"device": "cpu", "pin_memory": run.use_gpu}
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": settings.dtype == "bfloat16"},
        "gradient_clipping": MAX_GRAD_NORM,
        "train_micro_batch_size_per_gpu": run.per_device_batch,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": settings.global_batch,
    }


def start_deepspeed(use_gpu: bool) -> None:
    """Join DeepSpeed's process group; call before the models are loaded.

    On a CPU its shared-memory collectives are switched off: they compile for a minute at first use
    and gloo does the same.
    """
    if not use_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    from deepspeed import ops

    if not use_gpu:
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if use_gpu else "gloo")
