"""The SAE architectures by name: each is one module that knows how to encode and how to train.

A new one is a module with a class that fulfils `Architecture`, and its line in the table below.
"""

from __future__ import annotations

from raysae.errors import SettingsError
from raysae.sae.architectures.base import Architecture, StepBatch, StepResult
from raysae.sae.architectures.relu import ReluL1
from raysae.sae.architectures.topk import TopK

__all__ = ["ARCHITECTURES", "Architecture", "StepBatch", "StepResult", "architecture_named"]

ARCHITECTURES: dict[str, Architecture] = {"relu": ReluL1(), "topk": TopK()}


def architecture_named(name: str) -> Architecture:
    """Return the architecture of that name.

    Raises:
        SettingsError: There is none.
    """
    if name not in ARCHITECTURES:
        raise SettingsError(
            f"sae.architecture is {name!r}; choose one of {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[name]
