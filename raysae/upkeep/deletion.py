"""Deleting what a plan lists, in an order that leaves nothing that looks finished and is not.

Of an artifact: `metadata.json` first, then the marks, then other records (`*.json`: of checkpoints,
of an outcome), then the rest, `spec.json` last, then empty directories. Whoever comes between two
of these finds something unfinished, or nothing, but no record of what is gone. Of the score table:
manifests first, the oldest first, then marks, then data files.

What was taken away to see whether somebody needs it is put back whatever ends the deletion, unless
the deletion of its files has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

from raysae.artifacts import MARK_SUFFIX, METADATA_FILE, SPEC_FILE, ScoreTable
from raysae.artifacts.row_groups import DATA, MARKS
from raysae.artifacts.score_table import SCORES
from raysae.artifacts.uses import USES
from raysae.errors import RaysaeError, StorageError
from raysae.storage import Directory, Entry
from raysae.upkeep.clock import StorageClock
from raysae.upkeep.files import survey_files
from raysae.upkeep.garbage import (
    SCORE_FILES,
    Item,
    Keep,
    Plan,
    may_go,
    nodes_of,
    rules_for,
    used_in,
)
from raysae.upkeep.inventory import artifacts, is_name
from raysae.upkeep.references import UNREFERENCED, USED_UP, garbage
from raysae.upkeep.score_garbage import ScoreGarbage, key_of

AT_ONCE = 1000


class Deletion:
    """Deletes what a plan lists.

    Args:
        root: The storage.
        plan: What can go.
        keep: What the user wants to stay.
        clock: The storage's.

    Attributes:
        failed: Why something could not be deleted, by its item's name.
        spared: Items that somebody came to need meanwhile.
    """

    def __init__(self, root: Directory, plan: Plan, keep: Keep, clock: StorageClock) -> None:
        self.root = root
        self.plan = plan
        self.keep = keep
        self.clock = clock
        self.failed: dict[str, str] = {}
        self.spared: list[str] = []
        self._taken: dict[str, bytes] = {}

    def run(self) -> Iterator[Item]:
        """Delete, and yield each item once it is gone."""
        whole = [item for item in self.plan.items if not item.names and not item.uploads]
        try:
            for item in self._unfinish(whole):
                yield from self._try(item, self._delete_artifact)
        finally:
            for name in list(self._taken):
                self._finish_again(name)
        for item in self.plan.items:
            if item.names and item.reason != SCORE_FILES:
                yield from self._try(item, self._delete_files)
        yield from self._scores()
        for item in self.plan.items:
            if item.uploads:
                yield from self._try(item, self._abort_uploads)
        for name in self.plan.empty:
            (self.root / name).prune()

    def _try(self, item: Item, delete: Callable[[Item], bool]) -> Iterator[Item]:
        """Delete an item, and yield it if it is gone; note why if it is not."""
        try:
            if delete(item):
                yield item
            else:
                self.spared.append(item.name)
        except RaysaeError as error:
            self.failed[item.name] = str(error).rstrip(".")

    def _unfinish(self, items: Sequence[Item]) -> list[Item]:
        """Take `metadata.json` of what is finished away, and put it back where it is needed.

        Whoever wants to use an artifact says so first, by a `spec.json` that names it or by
        `artifacts.using`, and then looks whether it is finished. Here it is made unfinished first,
        and then those are looked for. So one of the two notices the other.
        """
        if not items:
            return []
        for item in items:
            if item.reason in {UNREFERENCED, USED_UP}:
                self._take_metadata(item.name)
        doomed = self._doomed_now(set(self._taken))
        for name in [name for name in self._taken if name not in doomed]:
            self._finish_again(name)
        self.spared += [
            item.name for item in items if item.name not in doomed and item.name not in self.failed
        ]
        return [item for item in items if item.name in doomed and item.name not in self.failed]

    def _take_metadata(self, name: str) -> None:
        """Take an artifact's `metadata.json` away, if it is there; note why if that fails."""
        directory = self.root / name
        try:
            self._taken[name] = directory.read_bytes(METADATA_FILE)
            directory.remove([METADATA_FILE])
        except FileNotFoundError:
            return
        except RaysaeError as error:
            self.failed[name] = str(error).rstrip(".")

    def _finish_again(self, name: str) -> None:
        """Put an artifact's metadata back, unless a run wrote them; note why if that fails."""
        why = _put_back(self.root / name, METADATA_FILE, self._taken[name])
        del self._taken[name]
        if why:
            self.failed[name] = (
                f"it stays, but its {METADATA_FILE} could not be put back ({why}), so run the job "
                "that made it again"
            )

    def _doomed_now(self, unfinished: set[str]) -> set[str]:
        """Return what is garbage by what the storage holds now.

        Args:
            unfinished: What counts as finished, although its `metadata.json` was taken away.
        """
        doomed = {item.name for item in self.plan.items}
        plan = Plan(found=list(artifacts(self.root)))
        surveys = {
            found.name: survey_files(found.directory, {})
            for found in plan.found
            if found.name in doomed
        }
        nodes = nodes_of(plan.found, surveys, self.clock)
        for name, node in nodes.items():
            before = self.plan.nodes.get(name)
            if name in unfinished and before is not None:
                nodes[name] = before
            elif before is not None and name not in doomed:
                nodes[name] = replace(node, young=before.young or node.finished != before.finished)
        return set(garbage(list(nodes.values()), rules_for(self.root, plan, self.keep, self.clock)))

    def _delete_artifact(self, item: Item) -> bool:
        """Delete all files of an artifact; False if somebody began to write there meanwhile."""
        directory = self.root / item.name
        there = list(directory.entries())
        if any(not self.clock.is_old(entry.modified) for entry in there):
            if item.name in self._taken:
                self._finish_again(item.name)
            return False
        self._taken.pop(item.name, None)
        for part in _in_order(entry.key for entry in there if is_name(entry.key)):
            self._remove(directory, part)
        if any(not self.clock.is_old(entry.modified) for entry in directory.entries()):
            return False  # a run has begun it anew, and needs its `spec.json`
        self._remove(directory, [SPEC_FILE])
        directory.prune()
        return True

    def _delete_files(self, item: Item) -> bool:
        """Delete files that are left in a directory; False if some of them are needed again.

        A use is written again by its run. One that has become old, because the storage was away
        for so long, may be young by now, and is looked at once more.
        """
        directory, again = self.root / item.name, set[str]()
        if item.name == USES:
            young = (entry for entry in directory.entries() if not may_go(entry, self.clock))
            again = {entry.key for entry in young} & {*item.names}
        self._remove(directory, [name for name in item.names if name not in again])
        return not again

    def _abort_uploads(self, item: Item) -> bool:
        """Give unfinished uploads up."""
        for upload in item.uploads:
            self.root.backend.abort_upload(upload)
        return True

    def _remove(self, directory: Directory, names: Iterable[str]) -> None:
        rest = iter(names)
        while part := list(islice(rest, AT_ONCE)):
            directory.remove(part)

    def _scores(self) -> Iterator[Item]:
        """Delete what of the score table can go."""
        scores, items = self.plan.scores, [i for i in self.plan.items if i.reason == SCORE_FILES]
        if scores is None or not items:
            return
        directory = self.root / SCORES
        try:
            for entry in scores.manifests:
                directory.remove([entry.key])
            for part in _row_groups(scores):
                self._remove_row_groups(scores.newest, part)
        except RaysaeError as error:
            self.failed[SCORES] = str(error).rstrip(".")
        else:
            yield from items

    def _remove_row_groups(self, newest: int, entries: Sequence[Entry]) -> None:
        """Remove marks, then those files that no manifest came to list meanwhile.

        A run that scores says so (`artifacts.using`), looks at the marks, and publishes a manifest.
        One that looked before the marks were removed is noticed here, and they are put back.

        Raises:
            StorageError: There is such a run.
        """
        table = ScoreTable(self.root)
        marks = [entry.key for entry in entries if entry.key.startswith(f"{MARKS}/")]
        data = [entry.key for entry in entries if entry.key.startswith(f"{DATA}/")]
        contents = dict(zip(marks, table.directory.read_many(marks), strict=True))
        needed = set(marks)
        try:
            self._remove(table.directory, marks)
            # First: a run that has ended by then has published what is listed after that.
            used = SCORES in used_in(self.root, self.clock)
            published = [number for number in table.manifests.numbers() if number > newest]
            listed = {name for number in published for name in table.files_of(number)}
            if not used:
                needed &= listed
        finally:
            for name in marks:
                content = contents[name]
                if name in needed and content is not None:
                    self._mark_again(table.directory, name, content)
        if used:
            raise StorageError(f"storage: a run has begun to score in {self.root}; collect later")
        self._remove(table.directory, [name for name in data if name not in listed])

    def _mark_again(self, directory: Directory, name: str, content: bytes) -> None:
        """Put a row group's mark back, unless a run wrote one; note why if that fails."""
        if why := _put_back(directory, name, content):
            self.failed[f"{SCORES}/{name}"] = (
                f"it could not be put back ({why}), so its rows are to be scored again"
            )


def _in_order(names: Iterable[str]) -> Iterator[list[str]]:
    """Yield an artifact's files but `spec.json` in parts, each to be gone before the next.

    A record names what lies beside or below it, among that the `*.json` of other tools.
    """
    there = sorted(names)
    marks = [name for name in there if name.endswith(MARK_SUFFIX)]
    records = [name for name in there if name.endswith(".json") and not name.endswith(MARK_SUFFIX)]
    yield [name for name in records if name == METADATA_FILE]
    yield marks
    others = [name for name in records if name not in {METADATA_FILE, SPEC_FILE}]
    for _, part in groupby(sorted(others, key=_depth), key=_depth):
        yield list(part)
    yield [name for name in there if not name.endswith(".json")]


def _depth(name: str) -> int:
    """Return in how many directories a file lies."""
    return name.count("/")


def _put_back(directory: Directory, name: str, content: bytes) -> str:
    """Write a file that was taken away, unless one is there again; return why not, or nothing."""
    try:
        if not directory.exists(name):
            directory.create(name, content)
    except (RaysaeError, FileNotFoundError) as error:
        return str(error).rstrip(".")
    return ""


def _row_groups(scores: ScoreGarbage) -> Iterator[list[Entry]]:
    """Yield marks and data files, a row group's together, some hundred at a time."""
    ordered = sorted([*scores.marks, *scores.data], key=lambda entry: key_of(entry.key))
    for start in range(0, len(ordered), AT_ONCE):
        yield ordered[start : start + AT_ONCE]
