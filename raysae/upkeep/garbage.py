"""What in a storage can go, item by item, and what is left alone because it is not understood."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from raysae.artifacts.score_table import SCORES
from raysae.artifacts.uses import USES
from raysae.errors import DataError, RaysaeError
from raysae.storage import Directory, Entry, Upload
from raysae.upkeep.clock import StorageClock
from raysae.upkeep.files import FileSurvey, is_left_by_the_dead, survey_files, temporary_part
from raysae.upkeep.inventory import KINDS, PROBES, Found, artifacts, is_name, links, strangers
from raysae.upkeep.listed import listed_files
from raysae.upkeep.references import WHY, Node, Rules, garbage
from raysae.upkeep.score_garbage import (
    ScoreGarbage,
    score_garbage,
    scored_with,
)
from raysae.upkeep.text import age_text, counted

LEFT = "left"
SCORE_FILES = "scores"
UPLOADS = "uploads"


@dataclass(frozen=True)
class Item:
    """Something that can go.

    Attributes:
        name: What it is: `<kind>/<id>`, or the directory that files are left in.
        reason: A key of `references.WHY`, or `left`, `scores`, `uploads`.
        why: For a person.
        files: How many.
        bytes: Theirs.
        names: The files, by their names in `name`; empty for a whole artifact.
        uploads: Unfinished ones.
    """

    name: str
    reason: str
    why: str
    files: int
    bytes: int
    names: tuple[str, ...] = ()
    uploads: tuple[Upload, ...] = ()


@dataclass
class Plan:
    """What can go, and what stays although it may be garbage.

    Attributes:
        items: In the order in which they are to go.
        notes: Why something is left alone, as sentences.
        scores: What of the score table is among the items.
        found: All artifacts.
        nodes: What decides about them, by name.
        empty: Artifacts' directories without a file, which can go when others do.
    """

    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scores: ScoreGarbage | None = None
    found: list[Found] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Keep:
    """What the user wants to stay.

    Attributes:
        manifests: How many of the score table's latest ones keep what they list.
        kinds: Kinds of which all that is finished stays.
        used_caches: Whether used-up caches go.
    """

    manifests: int
    kinds: tuple[str, ...]
    used_caches: bool


def plan_garbage(root: Directory, keep: Keep, clock: StorageClock) -> Plan:
    """Look through a storage for what can go; nothing is changed.

    Raises:
        StorageError: It cannot be listed.
    """
    plan = Plan(found=list(artifacts(root)))
    surveys = {found.name: _survey(found, plan) for found in plan.found}
    plan.nodes = nodes_of(plan.found, surveys, clock)
    doomed = garbage(list(plan.nodes.values()), rules_for(root, plan, keep, clock))
    in_use = used_in(root, clock)
    for found in plan.found:
        survey = surveys[found.name]
        if survey is None:
            continue
        if found.name in doomed:
            why = f"{WHY[doomed[found.name]]}, untouched for {_age(survey, clock)}"
            plan.items.append(Item(found.name, doomed[found.name], why, survey.files, survey.bytes))
        elif found.kind in KINDS:
            used = found.name in in_use
            _add_left(plan, found.name, _left_in(found, survey, clock, used=used))
    _add_scores(plan, root, keep, clock)
    for name in (PROBES, USES):
        _add_left(plan, name, (e for e in (root / name).entries() if may_go(e, clock)))
    _add_uploads(plan, root, clock)
    plan.notes += [f"{name} is no artifact of raysae's; left alone" for name in strangers(root)]
    return plan


def _age(survey: FileSurvey, clock: StorageClock) -> str:
    return age_text(clock.now - survey.touched)


def nodes_of(
    found: Iterable[Found], surveys: Mapping[str, FileSurvey | None], clock: StorageClock
) -> dict[str, Node]:
    """Return what decides about artifacts; one that could not be looked at counts as young."""
    there = list(found)
    made_from = links(there)
    nodes = {}
    for one in there:
        survey = surveys.get(one.name)
        young = survey is None or not clock.is_old(survey.touched)
        finished = one.metadata is not None
        nodes[one.name] = Node(one.name, finished, young, frozenset(made_from[one.name]))
    return nodes


def rules_for(root: Directory, plan: Plan, keep: Keep, clock: StorageClock) -> Rules:
    """Return what stays whatever refers to it; where that cannot be known, everything finished."""
    rules = Rules(KINDS, keep.kinds, used_in(root, clock), keep.used_caches)
    blind = [found for found in plan.found if found.inputs is None]
    if blind:
        plan.notes.append(
            f"{', '.join(found.name for found in blind)} cannot be read, so nothing that it may "
            "have been made from goes"
        )
        return replace(rules, kept=KINDS, used_caches=False)
    try:
        ids = scored_with(root, clock)
        why = "the marks do not tell what was scored with"
    except RaysaeError as error:
        ids, why = None, str(error).rstrip(".")
    if ids is None:
        plan.notes.append(f"{SCORES}: {why}; so of what is finished only caches can go")
        return replace(rules, kept={*keep.kinds, *KINDS} - ({"activations"} - {*keep.kinds}))
    named = {found.name for found in plan.found if found.id in ids}
    return replace(rules, named={*rules.named, *named})


def used_in(root: Directory, clock: StorageClock) -> set[str]:
    """Return the artifacts that runs say they read, unless they said so long ago.

    Raises:
        DataError: What one of them says cannot be read, so that it may be anything.
    """
    names: set[str] = set()
    uses = root / USES
    for entry in uses.entries():
        if not clock.is_old(entry.modified) and entry.key.endswith(".json"):
            try:
                used = uses.read_json(entry.key).get("artifacts")
            except FileNotFoundError:
                continue  # that run is over
            if not isinstance(used, list):
                raise DataError(
                    f"{uses.describe(entry.key)} does not tell what a run reads; delete it when "
                    "that run is over, and run again."
                )
            names.update(map(str, used))
    return names


def _survey(found: Found, plan: Plan) -> FileSurvey | None:
    """List an artifact's files; None, and a note, if it is to be left alone."""
    why = "lies behind a symbolic link" if found.linked else ""
    if found.problems:
        why = f"cannot be used ({found.problems[0].sentence})"
    if not why:
        try:
            listed = listed_files(found)
            survey = survey_files(found.directory, listed.sizes)
        except RaysaeError as error:
            why = f"cannot be read ({str(error).rstrip('.')})"
        else:
            if listed.problems and found.metadata is not None:
                why = f"is damaged ({listed.problems[0]})"
            elif survey.files == 0:
                plan.empty.append(found.name)
                return None
            else:
                return survey
    plan.notes.append(f"{found.name} {why}; left alone")
    return None


def _left_in(found: Found, survey: FileSurvey, clock: StorageClock, *, used: bool) -> list[Entry]:
    """Return the files of an artifact that stays which nobody needs.

    What no mark lists is left only where the artifact is finished: in an unfinished one it may be a
    checkpoint, or be written again under the same name and listed at any moment. A finished one of
    which something was lost is made again under its old metadata: by a run that uses it, and writes
    there again and again.
    """
    left = [*survey.temporaries, *survey.attempts]
    if found.metadata is not None and not used and clock.is_old(survey.touched):
        left += survey.unlisted
    return [entry for entry in left if may_go(entry, clock)]


def may_go(entry: Entry, clock: StorageClock) -> bool:
    """Whether a left-over is old enough to go, or its writer is known to be dead."""
    return is_name(entry.key) and (is_left_by_the_dead(entry.key) or clock.is_old(entry.modified))


def _add_left(plan: Plan, name: str, entries: Iterable[Entry]) -> None:
    left = list(entries)
    if left:
        temporaries = sum(bool(temporary_part(entry.key)) for entry in left)
        others = len(left) - temporaries
        parts = [counted(temporaries, "temporary", "temporaries")] if temporaries else []
        parts += [f"{counted(others, 'file')} that nothing lists"] if others else []
        plan.items.append(_files(name, LEFT, f"left behind: {' and '.join(parts)}", left))


def _files(name: str, reason: str, why: str, entries: Iterable[Entry]) -> Item:
    files = list(entries)
    names = tuple(entry.key for entry in files)
    return Item(name, reason, why, len(files), sum(entry.size for entry in files), names)


def _add_scores(plan: Plan, root: Directory, keep: Keep, clock: StorageClock) -> None:
    """Add what of the score table can go."""
    if not root.backend.is_inside(SCORES):
        plan.notes.append(f"{SCORES} lies behind a symbolic link; left alone")
        return
    if SCORES in used_in(root, clock):
        plan.notes.append(f"{SCORES} is in use by a run; left alone")
        return
    try:
        scores = score_garbage(root, keep.manifests, clock)
    except (RaysaeError, FileNotFoundError) as error:
        plan.notes.append(f"{SCORES} cannot be read ({str(error).rstrip('.')}); left alone")
        return
    plan.scores = scores
    plan.notes += [f"{SCORES}/{name} is no part of the table; left alone" for name in scores.others]
    for why, entries in (
        (f"older than the latest {counted(keep.manifests, 'manifest')}", scores.manifests),
        ("row groups that no kept manifest lists", [*scores.marks, *scores.data]),
    ):
        if entries:
            plan.items.append(_files(SCORES, SCORE_FILES, why, entries))
    _add_left(plan, SCORES, scores.left)


def _add_uploads(plan: Plan, root: Directory, clock: StorageClock) -> None:
    """Add the uploads in parts that were begun long ago and never ended."""
    tops = {*KINDS, SCORES, USES, PROBES}
    try:
        old = tuple(
            upload
            for upload in root.backend.unfinished_uploads(root.path)
            if clock.is_old(upload.begun) and upload.key.partition("/")[0] in tops
        )
    except RaysaeError as error:
        plan.notes.append(f"unfinished uploads cannot be looked for ({str(error).rstrip('.')})")
        return
    if old:
        size = sum(upload.size for upload in old)
        plan.items.append(
            Item(UPLOADS, UPLOADS, "never ended, and paid for", len(old), size, uploads=old)
        )
