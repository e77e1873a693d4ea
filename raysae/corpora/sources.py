"""The table of sources: a new corpus is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from raysae.corpora.align_anything import AlignAnythingCorpus
from raysae.corpora.builtin import builtin_directory
from raysae.corpora.corpus import Corpus, CorpusSettings
from raysae.corpora.snapshot import find_parquet_files, take_snapshot
from raysae.errors import SettingsError


class Source(NamedTuple):
    """How a named corpus is found and read."""

    reader: type[Corpus]
    locate: Callable[[CorpusSettings, str], Path]


def _users_path(settings: CorpusSettings, setting: str) -> Path:
    if not settings.path:
        raise SettingsError(
            f"{setting}.path: the corpus {settings.name!r} needs the directory of its Parquet "
            "files."
        )
    return Path(settings.path).expanduser().absolute()


def _shipped_path(settings: CorpusSettings, setting: str) -> Path:
    if settings.path:
        raise SettingsError(
            f"{setting}.path: the corpus {settings.name!r} is shipped with raysae and takes no "
            f"path (got {settings.path!r}); leave it out, or name the corpus 'align-anything'."
        )
    return builtin_directory(settings.name)


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
        SettingsError: An unknown name, a path that is missing or not wanted, a negative `max_rows`.
        DataError: No Parquet file, a damaged one, a missing column (it names both), or no row.
    """
    source = _source(settings.name, setting)
    if settings.max_rows < 0:
        raise SettingsError(
            f"{setting}.max_rows: must be 0 (all) or more, got {settings.max_rows}."
        )
    files = find_parquet_files(source.locate(settings, setting), f"{setting}.path")
    snapshot, schemas = take_snapshot(settings.name, files, settings.max_rows)
    return source.reader(snapshot, schemas)


def open_subset(settings: CorpusSettings, directory: Path) -> Corpus:
    """Open rows of a corpus that were written elsewhere in its own schema.

    Args:
        settings: The corpus that they were taken from; its path and `max_rows` are not looked at.
        directory: Where the Parquet files are.

    Raises:
        SettingsError: An unknown corpus.
        DataError: As `open_corpus`.
    """
    files = find_parquet_files(directory, "subset")
    snapshot, schemas = take_snapshot(settings.name, files, 0)
    return _source(settings.name, "corpus").reader(snapshot, schemas)


def _source(name: str, setting: str) -> Source:
    source = SOURCES.get(name)
    if source is None:
        raise SettingsError(
            f"{setting}.name: there is no corpus {name!r}; choose one of {', '.join(SOURCES)}."
        )
    return source
