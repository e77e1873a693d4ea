#!/usr/bin/env python
"""Show what a corpus holds, and what would be rejected and why, before anyone pays for GPUs.

`jobs/inspect.py NAME --corpus.path PLACE` prints columns, counts, lengths and a few rows, and
writes a page with pictures. It starts no cluster and reads no weights.
"""

import sys

if __name__ == "inspect":
    # A script's directory is the first place where Python looks for modules, so that every job
    # finds this file where the standard library's `inspect` is meant.
    from importlib.util import module_from_spec, spec_from_file_location
    from sysconfig import get_path

    spec = spec_from_file_location("inspect", f"{get_path('stdlib')}/inspect.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["inspect"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["inspect"])
else:
    from raysae.job import JobResult, run_job
    from raysae.stages.inspect import InspectSettings, run_inspect

    def work(settings: InspectSettings) -> JobResult:
        """Look at the corpus."""
        found = run_inspect(settings)
        page = settings.html or None
        return JobResult(page, "inspection", found.looked_at, found.rejected, resumed=False)


if __name__ == "__main__":
    words = sys.argv[1:]
    # The corpus' name may stand first, without its option.
    named = ["--corpus"] if words and not words[0].startswith("-") else []
    sys.exit(run_job("inspect", InspectSettings, work, __doc__ or "", [*named, *words]))
