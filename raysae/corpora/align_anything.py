"""Align-Anything (PKU-Alignment/align-anything): its configurations, and how each is scored.

Facts of the published data set: columns as its files have them, rows of its `train` files. It has
no ids. `overall_response` tells the better answer, 1 or 2; the authors' code drops rows with
anything else. Beside `train.parquet` lie older files of the same rows (`new/`, `train/`), so only
files that begin with `train` directly in a configuration's directory are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

from raysae.corpora.columns import ColumnMap
from raysae.errors import SettingsError

DEFAULT = "text-image-to-text"

_TEXT_ANSWERS = ColumnMap(
    question="question",
    response_1="response_1",
    response_2="response_2",
    preference="overall_response",
)
_IMAGE_AND_ANSWERS = replace(_TEXT_ANSWERS, image="image")


class Configuration(NamedTuple):
    """One of the data set's configurations.

    Attributes:
        rows: Rows of its training files, as published.
        columns: Its columns; None where a vision-language SAE has nothing to say.
        scored: What is shown to the model and which scores mean something, for people.
    """

    rows: int
    columns: ColumnMap | None
    scored: str


CONFIGURATIONS: Mapping[str, Configuration] = MappingProxyType(
    {
        "text-image-to-text": Configuration(
            39_216,
            _IMAGE_AND_ANSWERS,
            "question and image, by all scorers",
        ),
        "text-to-image": Configuration(
            29_997,
            ColumnMap(
                question="prompt",
                image_1="image_1",
                image_2="image_2",
                preference="overall_image",
            ),
            "the prompt with the better of its two images, by all scorers",
        ),
        "text-image-to-text-image": Configuration(
            27_012,
            _IMAGE_AND_ANSWERS,
            "question and image, by all scorers; published as JSON beside an archive of images, "
            "so write it to Parquet with these columns first",
        ),
        "text-to-text": Configuration(
            30_430, _TEXT_ANSWERS, "the question alone, by the scorers that need no image"
        ),
        "text-audio-to-text": Configuration(32_300, None, "audio"),
        "text-to-audio": Configuration(4_870, None, "audio"),
        "text-video-to-text": Configuration(9_501, None, "video"),
        "text-to-video": Configuration(9_000, None, "video"),
    }
)
"""Configuration → what it is. Rows of the last four are the data set card's or its viewer's."""


def align_anything_columns(configuration: str, setting: str) -> ColumnMap:
    """Return the columns of a configuration.

    Args:
        configuration: Its name; empty for the default.
        setting: The field of a job's settings that holds it, for messages.

    Raises:
        SettingsError: There is none of that name, or it is out of reach.
    """
    found = CONFIGURATIONS.get(configuration or DEFAULT)
    if found is not None and found.columns is not None:
        return found.columns
    usable = ", ".join(name for name, known in CONFIGURATIONS.items() if known.columns)
    problem = (
        f"there is no configuration {configuration!r}"
        if found is None
        else f"{configuration!r} is {found.scored}, which no vision-language model reads"
    )
    raise SettingsError(f"{setting}: {problem}; choose one of {usable}.")


def align_anything_files(configuration: str) -> tuple[str, ...]:
    """Return patterns of a configuration's files, the first that matches any counts."""
    name = configuration or DEFAULT
    return f"{name}/train*", "train*", f"{name}/*"


def align_anything_others(configuration: str) -> tuple[str, ...]:
    """Return patterns of the other configurations' files, some of which have the same columns."""
    name = configuration or DEFAULT
    return tuple(f"{other}/*" for other in CONFIGURATIONS if other != name)
