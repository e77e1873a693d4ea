"""The score table as loops over rows: which sample of a series has which score."""

from __future__ import annotations

from collections.abc import Sequence

from raysae.artifacts import RowGroup


class ScoreTableTwin:
    """What a score table must hold, series by series.

    Attributes:
        written: Row group → its score, of the run that wrote it first.
        series: Name → its row groups.
    """

    def __init__(self) -> None:
        self.written: dict[RowGroup, float] = {}
        self.series: dict[str, list[RowGroup]] = {}

    def write(self, group: RowGroup, score: float) -> None:
        if group not in self.written:
            self.written[group] = score

    def lose(self, group: RowGroup) -> None:
        """The data file is gone: the row group is not complete any more."""
        self.written.pop(group, None)

    def publish(self, groups: Sequence[RowGroup], series: str) -> None:
        """Whatever the series was before, it is these row groups now."""
        self.series[series] = list(groups)

    def scores(self) -> dict[tuple[str, str, int], float]:
        """Live sample, as series, lineage and row → its score."""
        return {
            (series, group.lineage, row): self.written[group]
            for series, groups in self.series.items()
            for group in groups
            for row in range(group.start, group.stop)
        }
