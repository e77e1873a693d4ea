"""The table of sources: a new corpus is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pyarrow as pa

from raysae.corpora.align_anything import (
    align_anything_columns,
    align_anything_files,
    align_anything_others,
)
from raysae.corpora.builtin import builtin_directory
from raysae.corpora.columns import ColumnMap
from raysae.corpora.conform import BROKEN, unify, with_rows
from raysae.corpora.corpus import Corpus, CorpusSettings
from raysae.corpora.locations import Location, parse_location
from raysae.corpora.mapped import MappedCorpus
from raysae.corpora.patterns import Wanted
from raysae.corpora.rlaif_v import RLAIF_V, RLAIF_V_FILES
from raysae.corpora.spa_vl import SPA_VL, SPA_VL_FILES
from raysae.corpora.taking import Taken, take_snapshot
from raysae.errors import SettingsError
from raysae.storage.uris import LocalUri


class Source(NamedTuple):
    """How a named corpus is found and read.

    Attributes:
        locate: (settings, field that holds them) → where its files are.
        columns: Likewise → which of its columns hold what.
        files: Settings → patterns of its files, see `patterns`.
        others: Settings → patterns of files that are another data set's.
        reader: What makes samples of its rows.
    """

    locate: Callable[[CorpusSettings, str], Location]
    columns: Callable[[CorpusSettings, str], ColumnMap]
    files: Callable[[CorpusSettings], tuple[str, ...]] = lambda _: ()
    others: Callable[[CorpusSettings], tuple[str, ...]] = lambda _: ()
    reader: Callable[..., Corpus] = MappedCorpus


def _users_path(settings: CorpusSettings, setting: str) -> Location:
    if not settings.path:
        raise SettingsError(
            f"{setting}.path: the corpus {settings.name!r} needs the directory of its files."
        )
    return parse_location(settings.path, f"{setting}.path")


def _shipped_path(settings: CorpusSettings, setting: str) -> Location:
    if settings.path:
        raise SettingsError(
            f"{setting}.path: the corpus {settings.name!r} is shipped with raysae and takes no "
            f"path (got {settings.path!r}); leave it out, or name the corpus 'align-anything'."
        )
    return LocalUri(builtin_directory(settings.name))


def _align_anything(settings: CorpusSettings, setting: str) -> ColumnMap:
    return align_anything_columns(settings.configuration, f"{setting}.configuration")


def _users_columns(settings: CorpusSettings, setting: str) -> ColumnMap:
    settings.columns.check(f"{setting}.columns")
    return settings.columns


_SHIPPED = Source(_shipped_path, lambda _, setting: align_anything_columns("", setting))

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "builtin": _SHIPPED,
        "builtin-noisy": _SHIPPED,
        "align-anything": Source(
            _users_path,
            _align_anything,
            lambda settings: align_anything_files(settings.configuration),
            lambda settings: align_anything_others(settings.configuration),
        ),
        "rlaif-v": Source(_users_path, lambda *_: RLAIF_V, lambda _: RLAIF_V_FILES),
        "spa-vl": Source(_users_path, lambda *_: SPA_VL, lambda _: SPA_VL_FILES),
        "generic": Source(_users_path, _users_columns),
    }
)


def corpus_columns(settings: CorpusSettings, setting: str = "corpus") -> pa.Schema:
    """Return all columns of a corpus' files: for a map that is still to be made.

    Raises:
        SettingsError: As `open_corpus`.
        DataError: Likewise.
    """
    fields = unify(with_rows(_take(_source(settings, setting), settings, setting).schemas))
    return pa.schema([field for field in fields if field.name != BROKEN])


def open_corpus(settings: CorpusSettings, setting: str = "corpus") -> Corpus:
    """Find a corpus' files, fingerprint them and check their columns.

    Args:
        settings: Which rows.
        setting: The field of a job's settings that holds them, for messages.

    Raises:
        SettingsError: An unknown name, a path that is missing, denied or not wanted, a column map
            that makes no samples or is not wanted, a negative `max_rows`.
        DataError: No corpus file, a damaged one, a missing column (it names both), or no row.
    """
    source = _source(settings, setting)
    columns = source.columns(settings, setting)
    taken = _take(source, settings, setting)
    return source.reader(taken.snapshot, taken.schemas, columns, taken.left_out, setting)


def _take(source: Source, settings: CorpusSettings, setting: str) -> Taken:
    if settings.max_rows < 0:
        raise SettingsError(
            f"{setting}.max_rows: must be 0 (all) or more, got {settings.max_rows}."
        )
    return take_snapshot(
        settings.name,
        source.locate(settings, setting),
        settings.max_rows,
        f"{setting}.path",
        Wanted(settings.files, source.files(settings), f"{setting}.files", source.others(settings)),
    )


def open_subset(settings: CorpusSettings, directory: Path | str) -> Corpus:
    """Open rows of a corpus that were written elsewhere in its own schema.

    Args:
        settings: The corpus that they were taken from; its path, `files` and `max_rows` are not
            looked at.
        directory: Where the Parquet files are: a path, or a URI.

    Raises:
        SettingsError: An unknown corpus, or a directory that is missing.
        DataError: As `open_corpus`.
    """
    source = _source(settings, "corpus")
    columns = source.columns(settings, "corpus")
    taken = take_snapshot(settings.name, parse_location(directory, "subset"), 0, "subset")
    return source.reader(taken.snapshot, taken.schemas, columns)


def _source(settings: CorpusSettings, setting: str) -> Source:
    source = SOURCES.get(settings.name)
    if source is None:
        is_path = "/" in settings.name or Path(settings.name).exists()
        place = f", and give the place as --{setting}.path" if is_path else ""
        raise SettingsError(
            f"{setting}.name: there is no corpus {settings.name!r}; choose one of "
            f"{', '.join(SOURCES)}{place}."
        )
    if settings.configuration and settings.name != "align-anything":
        raise SettingsError(
            f"{setting}.configuration: the corpus {settings.name!r} has none; leave it out."
        )
    if settings.columns != ColumnMap() and settings.name != "generic":
        raise SettingsError(
            f"{setting}.name: only the corpus 'generic' takes columns, but {settings.name!r} is "
            f"named (builtin is where none is); set {setting}.name to generic, or leave the "
            "columns out."
        )
    return source
