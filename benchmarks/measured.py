"""What measurements tell alike: when and where, and the spread of their runs."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent / "results"
"""Where the measurements that the README quotes are kept."""


def circumstances(device: str = "cpu") -> dict[str, Any]:
    """Return the day, the machine with its accelerator, and how busy it is at the start."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    if device.startswith("cuda"):
        machine = f"{torch.cuda.get_device_name(device)}, {machine}"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine,
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def spread(numbers: Sequence[float]) -> dict[str, float]:
    """Return the median and the extremes, to four digits."""
    values = {"median": statistics.median(numbers), "min": min(numbers), "max": max(numbers)}
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def drop_from_page_cache(files: Iterable[Path]) -> None:
    """Let the next reader of these files read the disk."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def store(results: dict[str, Any], file: Path) -> None:
    """Write results as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
