"""Versions of what the numbers depend on."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("raysae", "torch", "torchvision", "transformers", "pyarrow", "numpy", "ray", "pillow")


def package_versions() -> dict[str, str]:
    """Return the installed versions, by package, and Python's."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
