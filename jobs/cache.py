#!/usr/bin/env python
"""Cache a vision-language model's hidden states over a corpus, for training SAEs on.

Shards that are complete are left alone: run it again after any interruption.
"""

import sys

from raysae.job import JobResult
from raysae.pipeline import run_chain_job, run_to
from raysae.stages.chain import Chain, ChainSettings


def work(chain: Chain) -> JobResult:
    """Make the cache of `sae_corpus`."""
    return run_to(chain, "activations", "cache")


if __name__ == "__main__":
    sys.exit(run_chain_job("cache", ChainSettings, work, __doc__ or ""))
