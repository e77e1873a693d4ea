"""The score table as loops over rows: which sample has which score, and who wrote it."""

from __future__ import annotations

from raysae.artifacts import RowGroup


class ScoreTableTwin:
    """What a score table must hold, sample by sample.

    Attributes:
        written: Row group → its score, of the run that wrote it first.
        owner: Live sample, as lineage and row → the row group that it is in.
    """

    def __init__(self) -> None:
        self.written: dict[RowGroup, float] = {}
        self.owner: dict[tuple[str, int], RowGroup] = {}

    def write(self, group: RowGroup, score: float) -> None:
        if group not in self.written:
            self.written[group] = score

    def lose(self, group: RowGroup) -> None:
        """The data file is gone: the row group is not complete any more."""
        self.written.pop(group, None)

    def publish(self, group: RowGroup) -> None:
        """Whatever shares a row with the group goes, with all of its rows."""
        rows = [(group.lineage, row) for row in range(group.start, group.stop)]
        gone = {self.owner[row] for row in rows if row in self.owner}
        for row, owner in list(self.owner.items()):
            if owner in gone:
                del self.owner[row]
        for row in rows:
            self.owner[row] = group

    def scores(self) -> dict[tuple[str, int], float]:
        """Live sample → its score."""
        return {sample: self.written[group] for sample, group in self.owner.items()}
