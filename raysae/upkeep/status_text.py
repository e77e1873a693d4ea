"""The status of a storage as a person reads it: a line for each artifact, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from raysae.upkeep.artifact_status import ArtifactStatus
from raysae.upkeep.score_status import ScoreStatus
from raysae.upkeep.text import counted, reasons_text, size_text

LEFT = "in progress or left behind"
"""A listing does not tell whether somebody still writes a temporary file."""


def artifact_lines(status: ArtifactStatus) -> Iterator[str]:
    """Yield an artifact's line, and one for each thing that it is made from, left, or wrong."""
    yield f"{status.name}  {_state(status)}, {', '.join(_amounts(status))}"
    if status.inputs:
        yield f"    made from {', '.join(status.inputs)}"
    if status.work[0] and status.state == "unfinished":
        work = (
            f"    not in a mark yet: {counted(status.work[0], 'file')}, {size_text(status.work[1])}"
        )
        if status.checkpoints:
            many = counted(len(status.checkpoints), "checkpoint")
            work += f"; {many}, the last is {status.checkpoints[-1]}"
        yield work
    yield from left_lines(status.left)
    yield from (f"    problem: {problem}" for problem in status.problems)


def score_lines(status: ScoreStatus) -> Iterator[str]:
    """Yield the score table's line, one for each corpus, and what is left or wrong."""
    yield (
        f"scores  manifest {status.manifest} of {status.manifests:,}, "
        f"{counted(status.groups, 'live row group')}, {counted(status.rows, 'row')}, "
        f"{size_text(status.bytes)}"
    )
    for corpus, scorers in sorted(status.by_corpus.items()):
        yield f"    {corpus}: {reasons_text(scorers)}"
    if status.unlisted[0]:
        files, size = status.unlisted
        yield f"    not in the latest manifest: {counted(files, 'file')}, {size_text(size)}"
    yield from left_lines(status.left)
    yield from (f"    problem: {problem}" for problem in status.problems)


def left_lines(left: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """Yield a line for each kind of thing that is left."""
    for what, (files, size) in left.items():
        yield f"    {LEFT}: {counted(files, what)}, {size_text(size)}"


def total_lines(statuses: Sequence[ArtifactStatus], scores: ScoreStatus | None) -> Iterator[str]:
    """Yield what all of it comes to."""
    states = ("finished", "unfinished", "damaged", "unreadable")
    counts = {state: sum(status.state == state for status in statuses) for state in states}
    size = sum(status.bytes for status in statuses) + (scores.stored if scores else 0)
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
    left = [*(status.left for status in statuses), scores.left if scores else {}]
    left_bytes = sum(size for one in left for _, size in one.values())
    yield (
        f"together {counted(len(statuses), 'artifact')}{f' ({told})' if told else ''}, "
        f"{size_text(size)}"
        + (f"; {size_text(left_bytes)} {LEFT}, see jobs/collect.py" if left_bytes else "")
    )
    broken = [status.name for status in statuses if status.state in {"damaged", "unreadable"}]
    if broken:
        yield f"look at {', '.join(broken)}: run jobs/verify.py"


def _state(status: ArtifactStatus) -> str:
    if status.state == "finished":
        return f"finished {status.finished_at}"
    touched = f", touched {status.touched}" if status.touched else ""
    return f"{status.state}{touched}"


def _amounts(status: ArtifactStatus) -> list[str]:
    """Return the counts of an artifact's line."""
    told = []
    if status.state == "finished" and status.planned:
        told.append(counted(status.shards, "shard"))
    elif status.planned:
        told.append(f"{status.shards:,} of {counted(status.planned, 'shard')}")
    if status.rows:
        told.append(counted(status.rows, "row"))
    if status.rejected:
        reasons = f" ({reasons_text(status.reasons)})" if status.reasons else ""
        told.append(f"{status.rejected:,} rejected{reasons}")
    return [*told, size_text(status.bytes)]
