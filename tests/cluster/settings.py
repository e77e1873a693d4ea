"""A small run: 16 shards of 6 rows, an SAE of 128 features, two training ranks."""

from __future__ import annotations

from pathlib import Path

from raysae import scoring

ROWS = 96
SHARD_ROWS = 6
SHARDS = ROWS // SHARD_ROWS
SCORERS = len(scoring.SCORERS)
STEPS = 400
CHECKPOINT_EVERY = 40
TUNE_STEPS = 6
TUNE_CHECKPOINT_EVERY = 2
CPUS = 4
"""What Ray may hand out, on however few real ones: two jobs at once must fit."""


def options(storage: Path | str, model: Path, job: str = "filter") -> list[str]:
    """Return the options that all jobs of these tests share, and those of fine-tuning alone."""
    content = {
        "storage": storage,
        "model.path": model,
        # Deep, and one sample at a time: slow enough that a kill lands in the middle.
        "model.layer": 5,
        "run.token_budget": 1,
        "sae_corpus.max_rows": ROWS,
        "corpus.max_rows": ROWS,
        "shards.max_rows": SHARD_ROWS,
        "sae.d_sae": 128,
        "sae.k": 8,
        "sae.steps": STEPS,
        "sae.batch_tokens": 256,
        "sae.lr_warmup_steps": 10,
        "sae.lr_decay_steps": 50,
        "sae.aux_k": 16,
        "sae.dead_after_tokens": 5000,
        "weights.n_samples": 48,
        "train.workers": 2,
        "train.checkpoint_every": CHECKPOINT_EVERY,
    }
    if job == "finetune":
        content |= {
            "finetune.max_steps": TUNE_STEPS,
            "tune.checkpoint_steps": TUNE_CHECKPOINT_EVERY,
        }
    return [f"--{name}={value}" for name, value in content.items()]
