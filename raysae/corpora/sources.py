"""The table of sources: a new corpus is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from raysae.corpora.align_anything import AlignAnythingCorpus
from raysae.corpora.builtin import builtin_directory
from raysae.corpora.corpus import Corpus, CorpusSettings
from raysae.corpora.locations import Location, parse_location
from raysae.corpora.taking import take_snapshot
from raysae.errors import SettingsError
from raysae.storage.uris import LocalUri


class Source(NamedTuple):
    """How a named corpus is found and read."""

    reader: type[Corpus]
    locate: Callable[[CorpusSettings, str], Location]


def _users_path(settings: CorpusSettings, setting: str) -> Location:
    if not settings.path:
        raise SettingsError(
            f"{setting}.path: the corpus {settings.name!r} needs the directory of its Parquet "
            "files."
        )
    return parse_location(settings.path, f"{setting}.path")


def _shipped_path(settings: CorpusSettings, setting: str) -> Location:
    if settings.path:
        raise SettingsError(
            f"{setting}.path: the corpus {settings.name!r} is shipped with raysae and takes no "
            f"path (got {settings.path!r}); leave it out, or name the corpus 'align-anything'."
        )
    return LocalUri(builtin_directory(settings.name))


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "builtin": Source(AlignAnythingCorpus, _shipped_path),
        "builtin-noisy": Source(AlignAnythingCorpus, _shipped_path),
        "align-anything": Source(AlignAnythingCorpus, _users_path),
    }
)


def open_corpus(settings: CorpusSettings, setting: str = "corpus") -> Corpus:
    """Find a corpus' files, fingerprint them and check their columns.

    Args:
        settings: Which rows.
        setting: The field of a job's settings that holds them, for messages.

    Raises:
        SettingsError: An unknown name, a path that is missing, denied or not wanted, a negative
            `max_rows`.
        DataError: No Parquet file, a damaged one, a missing column (it names both), or no row.
    """
    source = _source(settings.name, setting)
    if settings.max_rows < 0:
        raise SettingsError(
            f"{setting}.max_rows: must be 0 (all) or more, got {settings.max_rows}."
        )
    location = source.locate(settings, setting)
    return source.reader(
        *take_snapshot(settings.name, location, settings.max_rows, f"{setting}.path")
    )


def open_subset(settings: CorpusSettings, directory: Path | str) -> Corpus:
    """Open rows of a corpus that were written elsewhere in its own schema.

    Args:
        settings: The corpus that they were taken from; its path and `max_rows` are not looked at.
        directory: Where the Parquet files are: a path, or a URI.

    Raises:
        SettingsError: An unknown corpus, or a directory that is missing.
        DataError: As `open_corpus`.
    """
    source = _source(settings.name, "corpus")
    location = parse_location(directory, "subset")
    return source.reader(*take_snapshot(settings.name, location, 0, "subset"))


def _source(name: str, setting: str) -> Source:
    source = SOURCES.get(name)
    if source is None:
        raise SettingsError(
            f"{setting}.name: there is no corpus {name!r}; choose one of {', '.join(SOURCES)}."
        )
    return source
