"""Subset to tuned model: hands the kept rows to the fine-tuning stage."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from raysae.corpora import open_subset
from raysae.sample import Rejection, Sample
from raysae.stages.chain import Chain, FinetuneJobSettings
from raysae.stages.finetune import run_finetune
from raysae.stages.result import StageResult
from raysae.stages.select import DATA_DIRECTORY


def run_tune(chain: Chain) -> StageResult:
    """Fine-tune the model on `chain.subset`, or go on where an earlier run was stopped.

    Raises:
        SettingsError: The model, the batch or the workers do not fit.
        DataError: Too few rows are usable, or the loss stopped being a number.
    """
    settings, artifact = chain.settings, chain.tuned
    assert isinstance(settings, FinetuneJobSettings), "only that job makes tuned models"
    metadata = run_finetune(chain.finetune, settings.tune, lambda: _subset_samples(chain), artifact)
    first, last = metadata["steps"][0], metadata["steps"][-1]
    sys.stdout.write(
        f"finetune: {last['step']} steps, loss {first['loss']:.4f} → {last['loss']:.4f}\n"
    )
    held_out = metadata["held_out"]
    if held_out:
        sys.stdout.write(
            f"finetune: on {held_out['pairs']:,} held-out pairs the better answer is likelier in "
            f"{held_out['accuracy_before']:.1%} before, {held_out['accuracy_after']:.1%} after\n"
        )
    resumed = metadata["resumed_at_step"] > 0
    return StageResult(metadata["rows"], metadata["rejected"], resumed)


def _subset_samples(chain: Chain) -> Iterator[Sample | Rejection]:
    """Yield the subset's rows, in order."""
    files = chain.subset.metadata()["data_files"]
    with chain.subset.directory.fetched(files) as local:
        yield from open_subset(chain.settings.corpus, local / DATA_DIRECTORY).all_samples()
