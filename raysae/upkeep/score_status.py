"""The state of the score table: what is live, and what no manifest lists."""

from __future__ import annotations

from dataclasses import dataclass, field

from raysae.artifacts import LiveGroup, ScoreTable
from raysae.artifacts.attempts import ATTEMPTS
from raysae.artifacts.row_groups import DATA, MARKS
from raysae.artifacts.score_table import MANIFESTS, SCORES
from raysae.errors import RaysaeError
from raysae.storage import Directory, Entry
from raysae.upkeep.files import temporary_part
from raysae.upkeep.text import counted


@dataclass
class ScoreStatus:
    """What is known of the score table.

    Attributes:
        manifest: Number of the latest manifest, which counts; 0 if there is none.
        manifests: How many there are.
        groups: Live row groups.
        rows: Rows in them: one for each sample and scorer, in every series.
        bytes: Of their data files.
        stored: Bytes of all files of the table.
        by_corpus: Corpus → scorer → rows of the newest series.
        unlisted: Data files and marks that the latest manifest does not list, with their bytes:
            of scoring that has not published yet, or of series that are no longer live.
        left: What is in progress or left behind, by what it is: files and bytes.
        problems: Sentences.
    """

    manifest: int = 0
    manifests: int = 0
    groups: int = 0
    rows: int = 0
    bytes: int = 0
    stored: int = 0
    by_corpus: dict[str, dict[str, int]] = field(default_factory=dict)
    unlisted: tuple[int, int] = (0, 0)
    left: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, live: LiveGroup) -> None:
        """Count a live row group."""
        self.groups += 1
        self.rows += live.rows
        self.bytes += live.size

    def add_newest(self, live: LiveGroup) -> None:
        """Count a row group of its corpus' newest series."""
        of_corpus = self.by_corpus.setdefault(live.corpus, {})
        of_corpus[live.scorer] = of_corpus.get(live.scorer, 0) + live.rows


def score_status(root: Directory) -> ScoreStatus | None:
    """Look at the score table; None if nothing was ever scored here."""
    status = ScoreStatus()
    try:
        table = ScoreTable(root)
        numbers = table.manifests.numbers()
        status.manifests = len(numbers)
        live: dict[str, int] = {}
        marks: dict[str, bool] = {}
        manifest = table.latest()
        status.manifest = manifest.number
        newest = manifest.newest_series()
        for group in manifest:
            if group.path not in live:
                status.add(group)
            if group.series == newest[group.corpus]:
                status.add_newest(group)
            live[group.path] = group.size
            marks[group.mark] = False
        there = False
        for entry in table.directory.entries():
            there = True
            status.stored += entry.size
            _look_at(status, entry, live, marks)
    except RaysaeError as error:
        status.problems.append(str(error).rstrip("."))
        return status
    if live:
        status.problems.append(
            f"missing or of another size: {counted(len(live), 'live data file')}, {min(live)} "
            "among them; run jobs/verify.py"
        )
    lost = [name for name, seen in marks.items() if not seen]
    if lost:
        status.problems.append(
            f"missing: {counted(len(lost), 'mark')} of live data files, {min(lost)} among them; "
            "the next run scores their rows again"
        )
    return status if there else None


def _look_at(
    status: ScoreStatus, entry: Entry, live: dict[str, int], marks: dict[str, bool]
) -> None:
    """Count a file of the table; if it is as listed, take it from `live`, or note it in `marks`."""
    where = entry.key.partition("/")[0]
    if temporary_part(entry.key):
        _add(status.left, "temporary", entry)
    elif entry.key in marks:
        marks[entry.key] = True
    elif live.get(entry.key) == entry.size:
        del live[entry.key]
    elif where == ATTEMPTS:
        _add(status.left, "attempt mark", entry)
    elif where in {DATA, MARKS} and entry.key not in live:
        files, size = status.unlisted
        status.unlisted = (files + 1, size + entry.size)
    elif where not in {DATA, MARKS, MANIFESTS}:
        _add(status.left, f"file that is none of {SCORES}'", entry)


def _add(left: dict[str, tuple[int, int]], what: str, entry: Entry) -> None:
    files, size = left.get(what, (0, 0))
    left[what] = (files + 1, size + entry.size)
