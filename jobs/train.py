#!/usr/bin/env python
"""Train a sparse autoencoder on cached hidden states (and cache them first, if they are not).

With --reading.stream true nothing is cached: the hidden states are computed while training runs.
A job that was interrupted goes on from its last checkpoint.
"""

import sys

from raysae.job import JobResult
from raysae.pipeline import run_chain_job, run_to
from raysae.stages.chain import Chain, ChainSettings


def work(chain: Chain) -> JobResult:
    """Make the SAE."""
    return run_to(chain, "saes", "train")


if __name__ == "__main__":
    sys.exit(run_chain_job("train", ChainSettings, work, __doc__ or ""))
