#!/usr/bin/env python
"""Print what in a storage nobody needs any more, and delete it with --delete.

Left-overs of killed runs, unfinished work that nobody went on with, score files and caches that
nothing refers to. Safe beside running jobs. Starts no cluster.
"""

import sys

from raysae.job import JobResult, run_job
from raysae.upkeep.collect import CollectSettings, run_collect


def work(settings: CollectSettings) -> JobResult:
    """Look, and delete if that is asked for."""
    return JobResult(run_collect(settings).storage, "collect", 0, 0, resumed=False)


if __name__ == "__main__":
    sys.exit(run_job("collect", CollectSettings, work, __doc__ or ""))
