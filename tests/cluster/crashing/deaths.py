"""Rows that kill whoever decodes or prepares them: the question says how.

No image is known to kill every version of Pillow, so a corpus class and a patched `prepare` do as
the row says. `site/sitecustomize.py` brings both into every process of a job.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from raysae.sample import Sample, TextPart

CRASHING = "crashing"
"""Name of the corpus in the settings."""

_TOLD = re.compile(r"\[(\w+) kills by (\w+)\]")


def _grow() -> None:
    held = []
    while True:
        held.append(bytearray(b"x") * (1 << 24))


def _hang() -> None:
    while True:
        time.sleep(60)


DEATHS: Mapping[str, Callable[[], Any]] = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "hang": _hang,
    "refusal": lambda: bytearray(1 << 62),
    "growth": _grow,
}


def deadly(step: str, death: str) -> str:
    """Return a question that kills in `samples`, `read` or `prepare`."""
    assert death in DEATHS
    return f"What is shown? [{step} kills by {death}]"


def die_if_told(step: str, text: str) -> None:
    """Die as a text says."""
    for told, death in _TOLD.findall(text):
        if told == step:
            DEATHS[death]()


def register(sources: Any) -> None:
    """Add the corpus to the table of `raysae.corpora.sources`."""

    def reader(*arguments: Any) -> Any:
        # Imported when it is needed: its own import is what loads the table, in some processes.
        from tests.cluster.crashing.corpus import CrashingCorpus

        return CrashingCorpus(*arguments)

    crashing = sources.SOURCES["align-anything"]._replace(reader=reader)
    sources.SOURCES = MappingProxyType({**sources.SOURCES, CRASHING: crashing})


def make_prepare_deadly(llava_next_model: Any) -> None:
    """Let the decoding in `raysae.models.llava_next_model` die where a sample says so."""
    harmless = llava_next_model.LlavaNext.fill

    def fill(self: Any, sample: Sample, outlined: Any) -> Any:
        for message in sample.messages:
            for part in message.parts:
                if isinstance(part, TextPart):
                    die_if_told("prepare", part.text)
        return harmless(self, sample, outlined)

    llava_next_model.LlavaNext.fill = fill


def make_impatient(trials: Any) -> None:
    """Let a row that stalls cost a third of the minute that it may take otherwise."""
    trials.LIMITS = replace(trials.LIMITS, row_s=20.0)
