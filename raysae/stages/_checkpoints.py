"""Checkpoints that are directories: complete under their name, or under no name at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

KEPT_CHECKPOINTS = 2
"""The newest may be looked for by a run beside this one while a newer one is published."""


def newest_checkpoint(checkpoints: Path) -> str | None:
    """Return the name of the complete checkpoint of the latest step, or None if there is none."""
    return max((path.name for path in checkpoints.glob("step-*")), default=None)


def move_files(source: Path, target: Path) -> None:
    """Move all files below one directory into another, durably; others may add theirs meanwhile."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        moved = target / file.relative_to(source)
        moved.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, moved)
        _sync(moved)
    shutil.rmtree(source)


def publish_checkpoint(incoming: Path, checkpoints: Path, step: int) -> None:
    """Give a checkpoint its name, and remove all but the newest.

    Args:
        incoming: A directory in `checkpoints`, with the files of all ranks.
        checkpoints: Where checkpoints are kept.
        step: Steps that are behind it.
    """
    try:
        incoming.rename(checkpoints / f"step-{step:010d}")
    except OSError:
        # A run beside this one has saved the same step: either is as good.
        shutil.rmtree(incoming)
    _sync(checkpoints)
    for old in sorted(checkpoints.glob("step-*"))[:-KEPT_CHECKPOINTS]:
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Make a file's content, or a directory's names, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
