#!/usr/bin/env python
"""Print what a storage holds: what is finished, half-done, damaged, left behind, and how big.

Reads names, sizes and small files only, and starts no cluster. Ends with 0 whatever it finds.
"""

import sys

from raysae.job import JobResult, run_job
from raysae.upkeep.status import StatusSettings, run_status


def work(settings: StatusSettings) -> JobResult:
    """Tell what there is."""
    held = run_status(settings)
    return JobResult(held.storage, "status", held.rows, held.rejected, resumed=False)


if __name__ == "__main__":
    sys.exit(run_job("status", StatusSettings, work, __doc__ or ""))
