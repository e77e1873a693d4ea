"""The whole chain as one table: which stage needs which, and what each makes.

`make` brings one stage up to date and, first, whatever it needs that is not finished, as `make`
does. Every job is a call of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from raysae.artifacts import METADATA_FILE, using
from raysae.corpora import Corpus
from raysae.job import JobResult, run_job
from raysae.stages.chain import Chain, ChainSettings
from raysae.stages.connection import disconnect
from raysae.stages.result import StageResult
from raysae.storage import Directory

ChainSettingsT = TypeVar("ChainSettingsT", bound=ChainSettings)


@dataclass(frozen=True)
class Stage:
    """One step of the chain.

    Attributes:
        needs: Stages whose results it reads, of a chain.
        where: The directory of what it makes.
        finished: Whether that is there and complete.
        run: Makes it, going on from what an interrupted run left.
        begun: Whether anything of it is there, of what no other job makes.
    """

    needs: Callable[[Chain], tuple[str, ...]]
    where: Callable[[Chain], Directory]
    finished: Callable[[Chain], bool]
    run: Callable[[Chain], StageResult]
    begun: Callable[[Chain], bool] = lambda _: False


def _run_cache(chain: Chain) -> StageResult:
    from raysae.stages.cache import run_cache

    return run_cache(chain)


def _run_train(chain: Chain) -> StageResult:
    from raysae.stages.train import run_train

    return run_train(chain)


def _run_weights(chain: Chain) -> StageResult:
    from raysae.stages.weights import run_weights

    return run_weights(chain)


def _run_score(chain: Chain) -> StageResult:
    from raysae.stages.score import run_score

    return run_score(chain)


def _scores_are_live(chain: Chain) -> bool:
    from raysae.stages.live_scores import scores_are_live

    return scores_are_live(chain)


def _scores_were_published(chain: Chain) -> bool:
    from raysae.stages.live_scores import scores_were_published

    return scores_were_published(chain)


def _run_select(chain: Chain) -> StageResult:
    from raysae.stages.select import run_select

    return run_select(chain)


def _run_report(chain: Chain) -> StageResult:
    from raysae.stages.report import run_report

    return run_report(chain)


def _run_tune(chain: Chain) -> StageResult:
    from raysae.stages.tune import run_tune

    return run_tune(chain)


def _always(*names: str) -> Callable[[Chain], tuple[str, ...]]:
    """Return the needs of a stage that are the same in every chain."""
    return lambda _: names


STAGES: Mapping[str, Stage] = {
    "activations": Stage(
        needs=_always(),
        where=lambda chain: chain.activations.directory,
        finished=lambda chain: all(cache.is_finished() for cache in chain.caches.values()),
        run=_run_cache,
    ),
    "saes": Stage(
        needs=lambda chain: () if chain.settings.reading.stream else ("activations",),
        where=lambda chain: chain.sae.directory,
        finished=lambda chain: chain.sae.is_finished(),
        run=_run_train,
    ),
    "weights": Stage(
        needs=_always("saes"),
        where=lambda chain: chain.weights.directory,
        finished=lambda chain: chain.weights.is_finished(),
        run=_run_weights,
        begun=lambda chain: chain.weights.is_begun(),
    ),
    "scores": Stage(
        needs=_always("saes", "weights"),
        where=lambda chain: chain.root / "scores",
        finished=_scores_are_live,
        run=_run_score,
        begun=_scores_were_published,
    ),
    "subsets": Stage(
        needs=_always("scores"),
        where=lambda chain: chain.subset.directory,
        finished=lambda chain: chain.subset.is_finished(),
        run=_run_select,
    ),
    "reports": Stage(
        needs=_always("saes", "weights", "scores", "subsets"),
        where=lambda chain: chain.report.directory,
        finished=lambda chain: chain.report.is_finished(),
        run=_run_report,
    ),
    "tuned": Stage(
        needs=_always("subsets"),
        where=lambda chain: chain.tuned.directory,
        finished=lambda chain: chain.tuned.is_finished(),
        run=_run_tune,
    ),
}
"""Kind of artifact → the stage that makes it. Stages are imported when they run: Ray takes seconds
to import, and a run that finds everything finished does without it."""


def make(chain: Chain, kind: str) -> StageResult | None:
    """Make an artifact, and first whatever it needs.

    Args:
        chain: The settings and the ids that follow from them.
        kind: A key of `STAGES`.

    Returns:
        What the stage made, `resumed` if it or anything it needs was there before, in whole or in
        part; None if all of it was finished before.

    Raises:
        RaysaeError: A setting or the data cannot be used.
    """
    with _in_use(chain, kind):
        return _make_in_use(chain, kind)


def _in_use(chain: Chain, kind: str) -> AbstractContextManager[None]:
    """Say that an artifact and all that it is made from are in use."""
    needed = _needed(chain, kind)
    paths = {STAGES[name].where(chain).path for name in needed}
    if "activations" in needed:
        paths.update(cache.directory.path for cache in chain.caches.values())
    return using(chain.root, sorted(paths))


def _make_in_use(chain: Chain, kind: str) -> StageResult | None:
    """Make an artifact while nobody removes what it is made from."""
    _mend_snapshots(chain, _needed(chain, kind))
    missing, found = _survey(chain, kind)
    if not missing:
        sys.stdout.write(f"{kind}: finished before, {STAGES[kind].where(chain)}\n")
        return None
    _look_first(chain, missing)
    resumed = bool(found)
    for name in missing:
        stage = STAGES[name]
        sys.stdout.write(f"{name}: making {stage.where(chain)}\n")
        sys.stdout.flush()
        result = stage.run(chain)
        resumed |= result.resumed
    return replace(result, resumed=resumed)


def _look_first(chain: Chain, missing: Collection[str]) -> None:
    """Look at a few rows of the users' corpora that are going to be read."""
    from raysae.stages.first_look import look_first

    read: dict[str, Corpus] = {}
    streams = "saes" in missing and not STAGES["saes"].needs(chain)
    if (streams or "activations" in missing) and chain.settings.sae_corpus.path:
        read["sae_corpus"] = chain.sae_corpus
    if not {"weights", "scores"}.isdisjoint(missing) and chain.settings.corpus.path:
        read["corpus"] = chain.corpus
    if read.get("corpus") is read.get("sae_corpus"):
        read.pop("sae_corpus", None)
    for setting, corpus in read.items():
        look_first(setting, corpus, chain.settings.run.max_rejected_fraction)


def _mend_snapshots(chain: Chain, needed: set[str]) -> None:
    """Write the list of a corpus' files again where it was lost."""
    from raysae.stages._snapshots import record_snapshot

    corpora = [(chain.sae_snapshot, chain.sae_corpus)]
    if "weights" in needed:
        corpora.append((chain.snapshot, chain.corpus))
    for artifact, corpus in corpora:
        if artifact.is_begun():
            record_snapshot(artifact, corpus.snapshot)


def _survey(chain: Chain, kind: str) -> tuple[list[str], list[str]]:
    """Return the stages that have to run for an artifact, in order, and the finished ones used.

    What a finished one was made from need not be there any more. But where it is there and damaged,
    it is made again, since nothing else does that.
    """
    missing: list[str] = []
    found: list[str] = []

    def look_at(name: str) -> None:
        if name in missing or name in found:
            return
        if STAGES[name].finished(chain):
            found.append(name)
            return
        for needed in STAGES[name].needs(chain):
            look_at(needed)
        missing.append(name)

    look_at(kind)
    for name in _needed(chain, kind) - {*missing, *found}:
        if STAGES[name].begun(chain):
            look_at(name)
    return sorted(missing, key=list(STAGES).index), found


def _needed(chain: Chain, kind: str) -> set[str]:
    """Return a kind of artifact and all kinds that it is made from."""
    return {kind}.union(*(_needed(chain, needed) for needed in STAGES[kind].needs(chain)))


def run_chain_job(
    name: str,
    settings_class: type[ChainSettingsT],
    work: Callable[[Chain], JobResult],
    description: str,
) -> int:
    """Run a job on the chain that its settings determine, and return the exit code.

    Args:
        name: The job's name: `filter`.
        settings_class: The job's settings.
        work: The job itself.
        description: What the job does, for `--help`: the script's docstring.
    """

    def work_and_disconnect(settings: ChainSettingsT) -> JobResult:
        try:
            return work(Chain(settings))
        finally:
            # What actors print is forwarded until then, and the result line must be the last.
            disconnect()

    return run_job(name, settings_class, work_and_disconnect, description)


def _warn_of_a_strangers_sae(chain: Chain, job: str) -> None:
    """Say so if a user's corpus is judged by an SAE of the built-in drawings: the default does."""
    settings = chain.settings
    if settings.sae_corpus.name == "builtin" and not settings.corpus.name.startswith("builtin"):
        sys.stdout.write(
            f"{job}: warning: the SAE is trained on sae_corpus builtin, small drawings, and not on "
            "a corpus like the filtered one; name one with --sae_corpus.\n"
        )


def run_to(chain: Chain, kind: str, job: str) -> JobResult:
    """Plan, or make an artifact and tell what it is: what most jobs consist of.

    Args:
        chain: The settings and the ids that follow from them.
        kind: A key of `STAGES` whose artifact has metadata.
        job: The job's name, for what is printed.
    """
    needed = _needed(chain, kind)
    if "weights" in needed:
        _warn_of_a_strangers_sae(chain, job)
    where = STAGES[kind].where(chain)  # First, since it refuses what cannot go together.
    if chain.settings.plan:
        from raysae.stages.plan import print_plan

        print_plan(chain, needed)
        return JobResult(None, "plan", 0, 0, resumed=False)
    with _in_use(chain, kind):
        result = _make_in_use(chain, kind)
        metadata = where.read_json(METADATA_FILE)
    sys.stdout.write(f"{job}: {kind} in {where}\n")
    resumed = result is None or result.resumed
    return JobResult(str(where), kind, metadata["rows"], metadata["rejected"], resumed)
