"""Shards through a Ray Data actor pool: retries, batch size and pool limits are set here, once.

One Ray row is one shard. CPU tasks read and validate a shard's rows (encoded bytes, never pixels);
actors that hold a model do the shard's work, write its output and its done mark, and return counts.
"""

from __future__ import annotations

import json
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import ray.data
from ray.data import DataContext
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from raysae.artifacts import Attempts, ShardSpec
from raysae.corpora import Corpus
from raysae.errors import DataError, RaysaeError
from raysae.models import ModelSettings
from raysae.models.memory import is_out_of_memory
from raysae.sample import Rejection, Sample
from raysae.settings import RunSettings
from raysae.stages._capacity import Resources, check_fits
from raysae.stages._careful import careful_read, reject_deadly
from raysae.stages._hidden_states import SHARDS_IN_ACTOR
from raysae.stages._metrics import ShardMetrics
from raysae.stages._progress import sum_counts
from raysae.stages._silence import told_of_silence
from raysae.stages._steady import steady_context, stream_of
from raysae.stages._trials import LIMITS
from raysae.stages._watchdog import watched
from raysae.stages.connection import connect
from raysae.stages.result import listed_reasons
from raysae.storage import Directory

READER_CPUS = 0.25
"""Of a core, per reading task: small, so that on a 2-core machine readers and an actor fit."""

MIN_QUEUED = 16
QUEUED_PER_ACTOR = 4
"""Shards that wait to be read, or are read and wait for an actor that has all that it takes."""


Publish = Callable[[], dict[str, Any]]
"""Writes what was made of a shard and its mark, and returns counts (`rows`, `rejected`, …)."""


class ShardWorker(Protocol):
    """Lives in an actor: built once, then called with shard after shard."""

    def finished(self, shard: ShardSpec) -> dict[str, Any] | None:
        """Return the counts of a shard that is complete, by whichever run; else None."""
        ...

    def work(self, shard: ShardSpec, samples: Sequence[Sample | Rejection]) -> Publish:
        """Do what needs the model, one shard at a time, and return what does the rest.

        That is called in the same thread, but another one may be at work on the next shard then.
        """
        ...


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard of the corpus that is worked on.

    Attributes:
        shard: Its rows.
        ordinals: Where not all of them are wanted, those that are.
        attempt: Under which name attempts at it are counted; the shard's own if empty.
    """

    shard: ShardSpec
    ordinals: tuple[int, ...] | None = None
    attempt: str = ""


def run_shards(
    stage: str,
    corpus: Corpus,
    tasks: Sequence[ShardTask],
    *,
    worker_class: type[ShardWorker],
    worker_arguments: Mapping[str, Any],
    attempts: Directory,
    model: ModelSettings,
    run: RunSettings,
) -> dict[str, float]:
    """Work on every shard once and return the summed counts.

    Args:
        stage: Name for the progress lines.
        corpus: The corpus that the shards are cut from.
        tasks: What is to be done; an empty list starts nothing.
        worker_class: Built once in each actor with `worker_arguments`.
        worker_arguments: Small, picklable keyword arguments.
        attempts: Where it is noted which shards were begun: a shard that killed its process twice
            has its rows tried one by one, and those that do it are rejected.
        model: What the samples are prepared for.
        run: Actors, devices, retries.

    Raises:
        SettingsError: The actors and a reader can never run at the same time on this cluster.
        RaysaeError: What a worker raised, unwrapped from Ray's own errors, or that processes died
            too often.
    """
    if not tasks:
        return {}
    connect()
    _check_capacity(stage, run)
    with DataContext.current(steady_context(max_queued(run.max_actors))):
        source = stream_of("task", map(to_text, tasks))
    dataset = through_actors(
        source,
        corpus,
        WorkerActor,
        (stage, worker_class, dict(worker_arguments), Attempts(attempts, "work"), model),
        reading=Attempts(attempts, "read"),
        run=replace(run, max_actors=min(run.max_actors, max(run.min_actors, len(tasks)))),
    )
    counts = (json.loads(row["counts"]) for row in dataset.iter_rows())
    with (
        unwrapped_errors(),
        described_deaths(stage, run.max_retries),
        told_of_silence(stage) as heard,
    ):
        return sum_counts(stage, len(tasks), counts, heard)


def max_queued(actors: int) -> int:
    """Return how many shards may wait for so many actors, or for being read."""
    return max(MIN_QUEUED, QUEUED_PER_ACTOR * actors)


def through_actors(
    source: ray.data.Dataset,
    corpus: Corpus,
    actor: type[WorkerActor],
    actor_arguments: tuple[Any, ...],
    *,
    reading: Attempts,
    run: RunSettings,
) -> ray.data.Dataset:
    """Return what a pool of actors makes of the shards that a data set names.

    Args:
        source: Tasks, as `to_text` writes them, in the column `task`.
        corpus: The corpus that the shards are cut from.
        actor: Called with one task and its rows at a time.
        actor_arguments: What each actor is built with.
        reading: Where attempts at reading are counted.
        run: Actors, devices, retries.
    """
    return (
        # Ray Data's own default is to try for ever: a row that kills its decoder or its actor would
        # loop.
        source.map(
            _read_shard,
            fn_kwargs={"corpus": corpus, "attempts": reading},
            num_cpus=READER_CPUS,
            max_retries=run.max_retries,
        ).map_batches(
            actor,
            fn_constructor_args=actor_arguments,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(
                min_size=run.min_actors,
                max_size=run.max_actors,
                max_tasks_in_flight_per_actor=SHARDS_IN_ACTOR + 1,
                max_concurrent_calls_per_actor=SHARDS_IN_ACTOR,
                enable_true_multi_threading=True,
            ),
            num_cpus=run.cpus_per_actor,
            num_gpus=run.gpus_per_actor,
            max_restarts=run.max_retries,
            # A task fails about once a second until the cluster notices that its node is gone, in
            # 15 seconds and more; its actor limits it, which fails it once it is dead for good.
            max_task_retries=-1,
        )
    )


def _check_capacity(stage: str, run: RunSettings) -> None:
    """Refuse actors that leave no room for a reader: the job would wait for ever."""
    actor = Resources(run.cpus_per_actor, run.gpus_per_actor)
    check_fits(
        f"{stage}'s {run.min_actors} actor(s) of {actor} each and a reader of {READER_CPUS} CPUs",
        [actor] * run.min_actors + [Resources(READER_CPUS, 0)],
        ("run.cpus_per_actor", "run.gpus_per_actor", "run.min_actors"),
    )


def check_rejected(
    stage: str,
    counts: Mapping[str, float],
    max_fraction: float,
    reasons: Mapping[str, int],
    setting: str = "run.max_rejected_fraction",
) -> None:
    """Stop a job whose corpus is mostly unusable.

    Args:
        stage: Its name, for the message.
        counts: `rows` and `rejected`.
        max_fraction: The share of rejected rows that is allowed.
        reasons: Rejected rows by reason.
        setting: The field that holds `max_fraction`.

    Raises:
        DataError: No row was usable, or more than `max_fraction` of them were rejected.
    """
    rows, rejected = counts.get("rows", 0), counts.get("rejected", 0)
    listed = listed_reasons(reasons)
    if rows == 0:
        raise DataError(f"{stage}: the corpus has no usable row ({listed or 'it is empty'}).")
    if rejected:
        sys.stdout.write(f"{stage}: rejected {listed}\n")
    fraction = rejected / (rows + rejected)
    if fraction > max_fraction:
        raise DataError(
            f"{stage}: {fraction:.0%} of the rows were rejected ({listed}), more than "
            f"{setting} = {max_fraction:g}; mend the corpus or raise the limit."
        )


def to_text(task: ShardTask) -> str:
    """Describe a task in a row of Ray Data, as JSON of its fields."""
    return json.dumps(asdict(task))


def _from_text(described: str) -> ShardTask:
    """Read what `to_text` wrote."""
    task = json.loads(described)
    ordinals = None if task["ordinals"] is None else tuple(task["ordinals"])
    shard = ShardSpec(**task["shard"])
    return ShardTask(shard, ordinals, task["attempt"] or shard.name)


def _read_shard(row: dict[str, str], corpus: Corpus, attempts: Attempts) -> dict[str, Any]:
    """Read and validate a shard's rows, or those of them that are wanted (a CPU task)."""
    task = _from_text(row["task"])
    with attempts.attempt(task.attempt) as careful:
        samples = None if careful else _read_at_once(corpus, task)
        if samples is None:
            samples = careful_read(corpus, task.shard, task.ordinals)
    return {"task": row["task"], "samples": pickle.dumps(samples)}


def _read_at_once(corpus: Corpus, task: ShardTask) -> list[Sample | Rejection] | None:
    """Read and validate rows in this process, which ends if one of them takes too long.

    None if a row asks for more memory than there is.
    """
    shard, ordinals = task.shard, task.ordinals
    samples = corpus.read_samples(shard) if ordinals is None else _drawn(corpus, shard, ordinals)
    try:
        return list(watched(samples, LIMITS.load_s, LIMITS.row_s))
    except MemoryError:
        return None


def _drawn(
    corpus: Corpus, shard: ShardSpec, ordinals: Sequence[int]
) -> Iterator[Sample | Rejection]:
    """Read a shard, and validate only some of its rows."""
    table = corpus.read(shard.file_index, shard.start, shard.stop, corpus.columns)
    for ordinal in ordinals:
        yield from corpus.samples(table.slice(ordinal - shard.first_ordinal, 1), ordinal)


class WorkerActor:
    """Adapts a `ShardWorker` to Ray Data's batches of one row; called in several threads.

    Args:
        stage: Whose metrics count what is done.
        worker_class: Built once.
        arguments: What it is built with.
        attempts: Where attempts at the work are counted.
        model: What the samples are prepared for.
    """

    def __init__(
        self,
        stage: str,
        worker_class: type[ShardWorker],
        arguments: Mapping[str, Any],
        attempts: Attempts,
        model: ModelSettings,
    ) -> None:
        self.attempts = attempts
        self.model = model
        self.metrics = ShardMetrics(stage)
        self.working = threading.Lock()
        self.failure: RaysaeError | None = None
        try:
            self.worker = worker_class(**arguments)
        except RaysaeError as error:
            # Ray turns what a constructor raises into text; what a call raises arrives as it is.
            self.failure = error

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        task = self.task(batch)
        with self.working:
            # By a run beside this one; or this one did it, but a node was lost with the answer.
            if (counts := self.worker.finished(task.shard)) is not None:
                return {"counts": [json.dumps(counts)]}
            started = time.monotonic()
            publish = self.work(task, batch)
        with described_memory(task.shard):
            counts = publish()
        self.metrics.add(counts, time.monotonic() - started)
        return {"counts": [json.dumps(counts)]}

    def task(self, batch: Mapping[str, Any]) -> ShardTask:
        """Return what is to be done.

        Raises:
            RaysaeError: The worker could not be built.
        """
        if self.failure is not None:
            raise self.failure
        return _from_text(batch["task"][0])

    def work(self, task: ShardTask, batch: Mapping[str, Any]) -> Any:
        """Let the worker do a shard, while no other thread does, and return what it returns."""
        # Of no shard that only waits or is published: its rows are not to blame for a death.
        with self.attempts.attempt(task.attempt) as careful, described_memory(task.shard):
            samples = pickle.loads(batch["samples"][0])  # noqa: S301 - of _read_shard
            if careful:
                samples = reject_deadly(self.model, samples)
            return self.worker.work(task.shard, samples)


@contextmanager
def described_memory(shard: ShardSpec) -> Iterator[None]:
    """Say what to lower where a shard needs more memory than there is.

    Raises:
        RaysaeError: It does.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RaysaeError(
            f"{shard.name} needs more memory than an actor can have; lower run.token_budget, "
            "shards.max_rows or run.cpus_per_actor (as many images are decoded at once), or run "
            "fewer actors on a node."
        ) from error


@contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise the raysae error that Ray wrapped, if there is one inside, instead of Ray's own."""
    try:
        yield
    except Exception as error:
        known = cause_of_ours(error)
        if known is None or known is error:
            raise
        # Ray Data appends advice about its own retry settings.
        known.args = (str(known).split("\nFailed to ", maxsplit=1)[0],)
        raise known from None


@contextmanager
def described_deaths(stage: str, max_retries: int) -> Iterator[None]:
    """Say in one sentence that processes died until `run.max_retries` was used up.

    Args:
        stage: Its name, for the message.
        max_retries: `run.max_retries`.

    Raises:
        RaysaeError: A reading process or an actor was lost for good.
    """
    try:
        yield
    except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as error:
        raise RaysaeError(
            f"{stage}: reading one shard failed {max_retries + 1} times because its process was "
            "lost (a row that crashes its decoder, too little memory, or lost nodes); remove the "
            "row, lower shards.max_rows or raise run.max_retries."
        ) from error
    except RayActorError as error:
        raise RaysaeError(
            f"{stage}: an actor was lost and is not restarted more than run.max_retries = "
            f"{max_retries} times (a row that crashes it, too little memory, or lost nodes); lower "
            "run.token_budget or shards.max_rows, or raise run.max_retries."
        ) from error


def cause_of_ours(error: BaseException | None) -> RaysaeError | None:
    """Find a raysae error inside the errors that Ray Data and Ray Train wrap around it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        # Ray raises a mixture of its own class and ours whose text is the remote traceback.
        if isinstance(error, RaysaeError) and not isinstance(error, RayTaskError):
            return error
        seen.append(error)
        # Ray Train: the failures of the ranks, by rank, or of its controller; Ray Core: the
        # exception in the worker.
        failures = getattr(error, "worker_failures", None) or {}
        inner = (
            next(iter(failures.values()), None)
            or getattr(error, "controller_failure", None)
            or getattr(error, "cause", None)
        )
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return None
