"""Deleting what a plan lists, in an order that leaves nothing that looks finished and is not.

Of an artifact: `metadata.json` first, then the marks, then the rest, `spec.json` last, then empty
directories. Whoever comes between two of these finds something unfinished, or nothing. Of the score
table: manifests first, the oldest first, then marks, then data files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from raysae.artifacts import MARK_SUFFIX, METADATA_FILE, SPEC_FILE, ScoreTable
from raysae.artifacts.row_groups import DATA, MARKS
from raysae.artifacts.score_table import SCORES
from raysae.errors import RaysaeError, StorageError
from raysae.storage import Directory, Entry
from raysae.upkeep.clock import StorageClock
from raysae.upkeep.files import survey_files
from raysae.upkeep.garbage import SCORE_FILES, Item, Keep, Plan, nodes_of, rules_for, used_in
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
        for item in self._unfinish(whole):
            yield from self._try(item, self._delete_artifact)
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
        taken = self._taken
        for item in items:
            if item.reason in {UNREFERENCED, USED_UP}:
                directory = self.root / item.name
                try:
                    taken[item.name] = directory.read_bytes(METADATA_FILE)
                    directory.remove([METADATA_FILE])
                except FileNotFoundError:
                    continue
                except RaysaeError as error:
                    taken.pop(item.name, None)
                    self.failed[item.name] = str(error).rstrip(".")
        doomed = self._doomed_now(set(taken))
        for name, metadata in taken.items():
            if name not in doomed:
                (self.root / name).put_bytes(METADATA_FILE, metadata)
        self.spared += [
            item.name for item in items if item.name not in doomed and item.name not in self.failed
        ]
        return [item for item in items if item.name in doomed and item.name not in self.failed]

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
                directory.create(METADATA_FILE, self._taken[item.name])
            return False
        names = [entry.key for entry in there if is_name(entry.key)]
        marks = {name for name in names if name.endswith(MARK_SUFFIX)}
        for part in ({METADATA_FILE}, marks, {*names} - marks - {METADATA_FILE, SPEC_FILE}):
            self._remove(directory, sorted(part))
        if any(not self.clock.is_old(entry.modified) for entry in directory.entries()):
            return False  # a run has begun it anew, and needs its `spec.json`
        self._remove(directory, [SPEC_FILE])
        directory.prune()
        return True

    def _delete_files(self, item: Item) -> bool:
        """Delete files that are left in a directory."""
        self._remove(self.root / item.name, item.names)
        return True

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
        self._remove(table.directory, marks)
        published = [number for number in table.manifests.numbers() if number > newest]
        listed = {name for number in published for name in table.files_of(number)}
        used = SCORES in used_in(self.root, self.clock)
        for name, content in contents.items():
            if (used or name in listed) and content is not None:
                table.directory.put_bytes(name, content)
        if used:
            raise StorageError(f"storage: a run has begun to score in {self.root}; collect later")
        self._remove(table.directory, [name for name in data if name not in listed])


def _row_groups(scores: ScoreGarbage) -> Iterator[list[Entry]]:
    """Yield marks and data files, a row group's together, some hundred at a time."""
    ordered = sorted([*scores.marks, *scores.data], key=lambda entry: key_of(entry.key))
    for start in range(0, len(ordered), AT_ONCE):
        yield ordered[start : start + AT_ONCE]
