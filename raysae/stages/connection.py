"""The job's connection to Ray: made by the first stage that needs it, ended before the job ends."""

from __future__ import annotations

import logging
import sys
import warnings

_opened: list[bool] = []
"""Holds an item while a connection that `connect` opened is up."""


def connect() -> None:
    """Join the cluster that the job runs in, or start Ray on this machine when there is none."""
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(log_to_driver=True, logging_level=logging.WARNING)
        _opened.append(True)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    for repeated in ("exceptions", "_internal.execution.streaming_executor_state"):
        # They print the traceback of what is raised next, an expected error or not.
        logging.getLogger(f"ray.data.{repeated}").setLevel(logging.CRITICAL)
    # Ray 2.60 has no other way to limit retries and restarts (pyproject.toml stops below 2.64).
    warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0
    # Otherwise the exception arrives as text inside one of Ray Data's own.
    context.raise_original_map_exception = True


def disconnect() -> None:
    """End the connection that `connect` opened, if it did.

    Ray forwards what actors and nodes print from a thread of its own, at any moment until then; a
    job's result must be the last line.
    """
    if _opened:
        import ray

        _opened.clear()
        sys.stdout.flush()
        ray.shutdown()
