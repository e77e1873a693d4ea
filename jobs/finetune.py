#!/usr/bin/env python
"""Tune a vision-language model on the filtered subset by DPO (and filter first, if need be).

A job that was interrupted goes on from its last checkpoint, with the weights that it had.
"""

import sys

from raysae.job import JobResult
from raysae.pipeline import run_chain_job, run_to
from raysae.stages.chain import Chain, FinetuneJobSettings


def work(chain: Chain) -> JobResult:
    """Make the tuned model."""
    return run_to(chain, "tuned", "finetune")


if __name__ == "__main__":
    sys.exit(run_chain_job("finetune", FinetuneJobSettings, work, __doc__ or ""))
