"""What of a corpus is scored already, as the score table tells."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.compute as pc

from raysae.artifacts import RowGroup, ScoreTable
from raysae.artifacts.marks import Mark
from raysae.artifacts.row_groups import MARKS
from raysae.scoring import SCORERS
from raysae.stages.chain import Chain


def row_groups(chain: Chain, *scorers: str) -> Iterator[RowGroup]:
    """Yield the row groups of `corpus`, shard by shard.

    Args:
        chain: The settings.
        scorers: By which scorers; by all of them if none is named.
    """
    for shard in chain.shards(chain.corpus):
        for scorer in scorers or SCORERS:
            yield chain.row_group(shard, scorer)


def scores_are_live(chain: Chain) -> bool:
    """Whether every shard of `corpus` has a live row group by every scorer, its file included."""
    return ScoreTable(chain.root).are_live(row_groups(chain), chain.series)


def scores_were_published(chain: Chain) -> bool:
    """Whether these scores were published, and neither newer ones took their place nor all is gone.

    Where no manifest is left, marks tell that there was one.
    """
    table = ScoreTable(chain.root)
    latest = table.latest()
    if latest.number == 0:
        return any((table.directory / MARKS).entries())
    return bool(pc.any(pc.equal(latest.table()["series"], chain.series)).as_py())


def score_marks(chain: Chain) -> Iterator[Mark]:
    """Yield one mark per shard of `corpus`, of the scorer that decides.

    Others' tell the same counts and rejected rows, unless what one scoring could use another,
    under other versions of packages, could not.

    Raises:
        DataError: A shard is not scored.
    """
    return ScoreTable(chain.root).marks(row_groups(chain, chain.settings.select.scorer))
