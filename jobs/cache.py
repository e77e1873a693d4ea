#!/usr/bin/env python
"""Cache a vision-language model's hidden states over a corpus, for training SAEs on.

Shards that are complete are left alone: run it again after any interruption. `--layers '[8,16]'`
caches several blocks' outputs in one pass.
"""

import sys

from raysae.job import JobResult
from raysae.pipeline import run_chain_job, run_to
from raysae.stages.chain import CacheJobSettings, Chain


def work(chain: Chain) -> JobResult:
    """Make the cache of `sae_corpus`, or one of each layer."""
    result = run_to(chain, "activations", "cache")
    if len(chain.caches) > 1 and not chain.settings.plan:
        for layer, cache in chain.caches.items():
            sys.stdout.write(f"cache: layer {layer} in {cache.directory}\n")
    return result


if __name__ == "__main__":
    sys.exit(run_chain_job("cache", CacheJobSettings, work, __doc__ or ""))
