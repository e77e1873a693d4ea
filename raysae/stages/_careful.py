"""A shard's rows one by one in a child process, so that a row that kills it is a rejected row.

For shards that killed their process before (`raysae.artifacts.Attempts`): decoding what anyone may
have put into a corpus can crash, never end, or take all memory. Rows that do no harm come out as
they do without a child. The forward pass is not tried: only an actor has the model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import pyarrow as pa

from raysae.artifacts import ShardSpec
from raysae.corpora import Corpus
from raysae.sample import Rejection, Sample
from raysae.stages._child import Work
from raysae.stages._trials import LIMITS, Limits, Loss, Trials

if TYPE_CHECKING:
    # A child that reads rows needs no torch, which takes seconds to import.
    from raysae.models import HiddenStateModel, ModelSettings


def careful_read(
    corpus: Corpus,
    shard: ShardSpec,
    ordinals: Sequence[int] | None = None,
    limits: Limits = LIMITS,
) -> list[Sample | Rejection]:
    """Read and validate a shard's rows in a child process, one after another.

    The shard is read at once, as without a child; should that already kill the child, row by row.
    Then a damaged page costs the rows that cannot be read without it.

    Args:
        corpus: Where the shard was cut from; pickled, so its class must be importable.
        shard: The rows.
        ordinals: Only these of them, in this order; None means all.
        limits: What a child may take.

    Returns:
        Per row what `Corpus.samples` makes of it, or a `Rejection` with the reason
        `crashes-decoder` or `decoder-timeout`.

    Raises:
        RaysaeError: No child could be started.
        DataError: As `Corpus.read`.
    """
    if ordinals is None:
        ordinals = shard.ordinals
    with Trials(_Reading(corpus), limits) as trials:
        return list(_tried(corpus, trials, shard, ordinals, limits))


class CarefulReader:
    """Reads shards as `careful_read` does, with one child for each thread that asks.

    Use it as a context, which ends the children; the threads must live until then or ask no more.

    Args:
        corpus: As in `careful_read`.
        limits: What each child may take.
    """

    def __init__(self, corpus: Corpus, limits: Limits = LIMITS) -> None:
        self._corpus = corpus
        self._limits = limits
        self._of_thread = threading.local()
        self._children = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._children.close()

    def read(self, shard: ShardSpec) -> list[Sample | Rejection]:
        """Return a shard's rows; raises what `careful_read` raises."""
        if not hasattr(self._of_thread, "trials"):
            trials = Trials(_Reading(self._corpus), self._limits)
            self._of_thread.trials = self._children.enter_context(trials)
        trials = self._of_thread.trials
        return list(_tried(self._corpus, trials, shard, shard.ordinals, self._limits))


def _tried(
    corpus: Corpus, trials: Trials, shard: ShardSpec, ordinals: Sequence[int], limits: Limits
) -> Iterator[Sample | Rejection]:
    at_once = True
    for ordinal in ordinals:
        request = (shard, ordinal, at_once)
        outcome = trials.run(request, limits.load_s if at_once else limits.row_s)
        if at_once and isinstance(outcome, Loss) and outcome.loading:
            at_once = False
            outcome = trials.run((shard, ordinal, at_once), limits.row_s)
        if isinstance(outcome, Loss):
            done = "read" if outcome.loading else "decoded"
            sample_id = corpus.snapshot.sample_id(ordinal)
            outcome = _rejection(sample_id, ordinal, outcome, done)
        yield outcome


def reject_deadly(
    settings: ModelSettings, rows: Sequence[Sample | Rejection], limits: Limits = LIMITS
) -> list[Sample | Rejection]:
    """Find the samples that kill `HiddenStateModel.prepare`, with a model without weights.

    What `prepare` raises is left to the caller, who will meet it too.

    Args:
        settings: The model that the samples are for.
        rows: Samples; rejections are passed on.
        limits: What a child may take.

    Returns:
        The rows in their order, each deadly sample replaced by a `Rejection` with the reason
        `crashes-decoder` or `decoder-timeout`.

    Raises:
        RaysaeError: No child could be started.
    """
    kept: list[Sample | Rejection] = []
    with Trials(_Preparing(settings), limits) as trials:
        for row in rows:
            outcome = None if isinstance(row, Rejection) else trials.run(row)
            if isinstance(outcome, Loss):
                kept.append(_rejection(row.sample_id, row.ordinal, outcome, "prepared"))
            else:
                kept.append(row)
    return kept


def _rejection(sample_id: str, ordinal: int, loss: Loss, done: str) -> Rejection:
    return Rejection(
        sample_id, ordinal, loss.reason, f"the child process that {done} it {loss.detail}"
    )


class _Reading(Work):
    """Rows by shard and ordinal; a request says besides whether to read the whole shard at once."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._read: tuple[int, int, int] | None = None
        self._table: pa.Table = None

    def load(self, request: tuple[ShardSpec, int, bool]) -> None:
        shard, ordinal, at_once = request
        row = _row(shard, ordinal)
        start, stop = (shard.start, shard.stop) if at_once else (row, row + 1)
        wanted = (shard.file_index, start, stop)
        if self._read != wanted:
            self._table = self._corpus.read(*wanted, self._corpus.columns)
            self._read = wanted

    def work(self, request: tuple[ShardSpec, int, bool]) -> Sample | Rejection:
        assert self._read is not None
        shard, ordinal, _ = request
        table = self._table.slice(_row(shard, ordinal) - self._read[1], 1)
        (sample,) = self._corpus.samples(table, ordinal)
        return sample


def _row(shard: ShardSpec, ordinal: int) -> int:
    """Return the row in its file that an ordinal of a shard is."""
    return shard.start + ordinal - shard.first_ordinal


class _Preparing(Work):
    """Samples made ready for a model, and forgotten."""

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        self._model: HiddenStateModel | None = None

    def start(self) -> None:
        from raysae.models import load_hidden_state_model

        self._model = load_hidden_state_model(self._settings, "meta")

    def work(self, request: Sample) -> None:
        assert self._model is not None
        try:
            self._model.prepare(request)
        except MemoryError:
            raise
        except Exception:
            return
