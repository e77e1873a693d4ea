"""A corpus before anything is computed on it: what it holds, and what would be rejected and why.

Nothing is written but the page, no cluster is started, no weights are loaded. Rows are read in
child processes: one that kills its decoder is shown as the rejected row that it is to a job.
"""

from __future__ import annotations

import io
import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
from PIL import Image

from raysae.corpora import Corpus, CorpusSettings, corpus_columns, open_corpus
from raysae.corpora.align_anything import CONFIGURATIONS, DEFAULT
from raysae.corpora.columns import ColumnMap, top_level
from raysae.corpora.parallel import in_order
from raysae.errors import RejectedSampleError, SettingsError
from raysae.interpret import group_rejections
from raysae.interpret.corpus_page import render_corpus
from raysae.interpret.corpus_text import corpus_lines
from raysae.interpret.inspection import Column, Example, Inspection, Part, spread
from raysae.models import HiddenStateModel, ModelSettings, load_hidden_state_model, upright_size
from raysae.sample import IMAGE_FORMATS, Modality, Rejection, Sample
from raysae.stages._careful import CarefulReader
from raysae.stages._spread import spread_runs
from raysae.stages.chain import FinetuneJobSettings

RUN_ROWS = 16
"""Consecutive rows that are read at a time, at most."""

EXAMPLES = 6


@dataclass(frozen=True)
class InspectSettings:
    """What is inspected.

    Args:
        corpus: The corpus; its name may also stand first on the command line, without an option.
        model: The model whose tokens are counted and whose reasons to reject rows count; none if
            its path is empty.
        rows: How many rows are looked at, in runs spread evenly over the corpus; 0 means all.
        html: File that the page is written to; none if empty.
    """

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    model: ModelSettings = field(default_factory=lambda: ModelSettings(path=""))
    rows: int = 1000
    html: str = "inspection.html"

    # A corpus is inspected before the chain is run with the same file.
    passed_over: ClassVar[frozenset[str]] = frozenset(
        one.name for one in fields(FinetuneJobSettings)
    ) - {"corpus", "model"}

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise SettingsError(f"rows: must be 0 (all) or more, got {self.rows}.")


def run_inspect(settings: InspectSettings) -> Inspection:
    """Look at a corpus, print what it holds and write the page.

    Raises:
        SettingsError: A setting cannot be used; of `generic` without a column map the columns are
            printed first.
        DataError: The corpus cannot be read.
    """
    if settings.corpus.name == "generic" and settings.corpus.columns == ColumnMap():
        _print_columns(corpus_columns(settings.corpus))
    corpus = open_corpus(settings.corpus)
    # Which block is read makes no difference to what is shown.
    shown = replace(settings.model, layer=0)
    model = load_hidden_state_model(shown, "meta") if shown.path else None
    expected = min(settings.rows or corpus.snapshot.rows, corpus.snapshot.rows)
    counting = _Counting(model, expected // EXAMPLES)
    for row in _rows(corpus, settings.rows):
        counting.add(row)
    found = _inspection(settings, corpus, counting)
    for line in corpus_lines(found):
        sys.stdout.write(f"inspect: {line}\n")
    if settings.html:
        path = Path(settings.html).absolute()
        try:
            path.write_text(render_corpus(found), encoding="utf-8")
        except OSError as error:
            raise SettingsError(
                f"html: {path} cannot be written ({error.strerror}); name another file."
            ) from error
        sys.stdout.write(f"inspect: page in {path}\n")
    return found


def _print_columns(schema: pa.Schema) -> None:
    for column in schema:
        sys.stdout.write(f"inspect: column {column.name}: {column.type}\n")
    sys.stdout.write("inspect: say which of them hold what: --corpus.columns.question NAME, …\n")


def _rows(corpus: Corpus, wanted: int) -> Iterator[Sample | Rejection]:
    """Yield rows in order, read and validated by as many child processes as there are cores."""
    runs = list(spread_runs(corpus.snapshot, wanted, RUN_ROWS))
    children = min(len(runs), len(os.sched_getaffinity(0)))
    with CarefulReader(corpus) as reader:
        for samples in in_order(reader.read, runs, children, one_by_one=True):
            yield from samples


class _Counting:
    """What the rows come to; of the rows themselves only a few are held.

    Args:
        model: As in the settings.
        between: Rows from one example to the next, at least.
    """

    def __init__(self, model: HiddenStateModel | None, between: int) -> None:
        self.model = model
        self._between = between
        self._next_example = 0
        self.rows = 0
        self.numbers: dict[str, array[float]] = {}
        self.formats: Counter[str] = Counter()
        self.rejections: list[Rejection] = []
        self.examples: list[Example] = []

    def add(self, row: Sample | Rejection) -> None:
        """Take a row in."""
        self.rows += 1
        if isinstance(row, Sample):
            try:
                self._add_sample(row)
            except RejectedSampleError as error:
                row = Rejection(row.sample_id, row.ordinal, error.reason, error.detail)
        if isinstance(row, Rejection):
            self.rejections.append(row)

    def _add_sample(self, sample: Sample) -> None:
        outlined = None if self.model is None else self.model.outline(sample)
        question = "\n".join(message.text for message in sample.messages)
        self._note("question, characters", len(question))
        for name, text in (("chosen", sample.chosen), ("rejected", sample.rejected)):
            if text is not None:
                self._note(f"{name} answer, characters", len(text))
        self._note("images of a row", len(sample.images))
        for image in sample.images:
            width, height = upright_size(image)
            self._note("image width, pixels", width)
            self._note("image height, pixels", height)
            self._note("image file, KiB", len(image) / 1024)
            self.formats[_format(image)] += 1
        if outlined is not None:
            for modality in (Modality.TEXT, Modality.IMAGE):
                tokens = int((outlined.modality_n == modality).sum())
                self._note(f"{modality.name.lower()} tokens", tokens)
        if self.rows >= self._next_example and len(self.examples) < EXAMPLES:
            self._next_example = self.rows + self._between
            self.examples.append(
                Example(
                    sample.sample_id,
                    sample.ordinal,
                    sample.images,
                    question,
                    sample.chosen or "",
                    sample.rejected or "",
                )
            )

    def _note(self, name: str, value: float) -> None:
        self.numbers.setdefault(name, array("d")).append(value)


def _format(data: bytes) -> str:
    """Return an image's format and mode, e.g. `JPEG RGB`."""
    with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
        return f"{image.format} {image.mode}"


def _inspection(settings: InspectSettings, corpus: Corpus, counting: _Counting) -> Inspection:
    files = corpus.snapshot.files
    spreads = (spread(name, values) for name, values in counting.numbers.items())
    return Inspection(
        corpus=settings.corpus.name,
        place=settings.corpus.path or "raysae itself",
        files=len(files),
        left_out=corpus.left_out,
        bytes=sum(file.size for file in files),
        rows=corpus.snapshot.rows,
        looked_at=counting.rows,
        columns=_columns(corpus),
        parts=_parts(settings.corpus),
        model=settings.model.path,
        spreads=tuple(one for one in spreads if one is not None),
        formats=tuple(counting.formats.most_common()),
        rejections=group_rejections(counting.rejections),
        examples=tuple(counting.examples),
    )


def _columns(corpus: Corpus) -> tuple[Column, ...]:
    """Return the corpus' columns, each with the roles that it, or a part of it, has in the map."""
    names = set(corpus.schema.names)
    roles: dict[str, list[str]] = {}
    for role, path in ColumnMap(**corpus.reading().get("columns", {})).roles.items():
        roles.setdefault(top_level(path, names), []).append(role)
    return tuple(
        Column(column.name, str(column.type), ", ".join(roles.get(column.name, [])))
        for column in corpus.schema
    )


def _parts(settings: CorpusSettings) -> tuple[Part, ...]:
    if settings.name != "align-anything":
        return ()
    inspected = settings.configuration or DEFAULT
    return tuple(
        Part(
            name,
            known.rows,
            known.scored if known.columns else f"not read: {known.scored}",
            name == inspected,
        )
        for name, known in CONFIGURATIONS.items()
    )
