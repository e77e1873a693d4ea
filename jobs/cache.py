#!/usr/bin/env python
"""Cache a vision-language model's hidden states over a corpus, for training SAEs on.

Shards that are complete are left alone: run it again after any interruption.
"""

import sys

from raysae.job import JobResult, run_job
from raysae.pipeline import run_to
from raysae.stages.chain import ChainSettings


def work(settings: ChainSettings) -> JobResult:
    """Make the cache of `sae_corpus`."""
    return run_to(settings, "activations", "cache")


if __name__ == "__main__":
    sys.exit(run_job("cache", ChainSettings, work, __doc__ or ""))
