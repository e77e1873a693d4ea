#!/usr/bin/env python
"""Tune a vision-language model on the filtered subset by DPO (and filter first, if need be).

A job that was interrupted goes on from its last checkpoint, with the weights that it had.
"""

import sys

from raysae.job import JobResult, run_job
from raysae.pipeline import run_to
from raysae.stages.chain import FinetuneJobSettings


def work(settings: FinetuneJobSettings) -> JobResult:
    """Make the tuned model."""
    return run_to(settings, "tuned", "finetune")


if __name__ == "__main__":
    sys.exit(run_job("finetune", FinetuneJobSettings, work, __doc__ or ""))
