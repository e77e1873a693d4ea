#!/usr/bin/env python
"""Keep the part of a preference corpus that is worth training on, and show why.

Makes whatever is missing on the way: the cache of hidden states, the SAE, the feature weights, the
scores. Without arguments it filters the built-in corpus with the built-in model.
"""

import sys

from raysae.job import JobResult
from raysae.pipeline import STAGES, make, run_chain_job, run_to
from raysae.stages.chain import Chain, ChainSettings


def work(chain: Chain) -> JobResult:
    """Make the subset and its report."""
    result = run_to(chain, "subsets", "filter")
    if not chain.settings.plan:
        make(chain, "reports")
        sys.stdout.write(f"filter: report in {STAGES['reports'].where(chain)}/report.html\n")
    return result


if __name__ == "__main__":
    sys.exit(run_chain_job("filter", ChainSettings, work, __doc__ or ""))
