#!/usr/bin/env python
"""Read every file of a storage again and compare it with what was written.

Ends with 3 if something is damaged, each with a sentence; --repair takes away the marks of damaged
shards, so that the job that made them makes exactly those again. Starts no cluster.
"""

import sys

from raysae.job import JobResult, run_job
from raysae.upkeep.verify import VerifySettings, run_verify


def work(settings: VerifySettings) -> JobResult:
    """Read and compare."""
    verified = run_verify(settings)
    return JobResult(verified.storage, "verify", 0, 0, resumed=False)


if __name__ == "__main__":
    sys.exit(run_job("verify", VerifySettings, work, __doc__ or ""))
