"""What of a corpus is scored already, as the score table tells."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow.compute as pc

from raysae.artifacts import RowGroup, ScoreTable, ShardSpec
from raysae.artifacts.manifests import KEPT_SERIES
from raysae.artifacts.marks import Mark
from raysae.scoring import SAE_SCORERS, SCORERS
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

    Marks tell of scores whose manifest was lost, so that an earlier one counts, or none; but not
    where that has as many series as are kept, since newer ones may have taken their place. Those of
    one shard tell for all: a large corpus has very many.
    """
    if (shard := _shard_of_largest_file(chain)) is None:
        return False
    # What other scorers make is shared by chains with other SAEs.
    groups = [chain.row_group(shard, scorer) for scorer in SAE_SCORERS]
    table = ScoreTable(chain.root)
    listed = table.latest().table(["corpus", "series", "lineage", "start", "stop"])
    listed = listed.filter(pc.equal(listed["corpus"], chain.settings.corpus.name))
    mine = listed.filter(pc.equal(listed["series"], chain.series))
    if len(mine):
        # The same rows cut into other shards are the same series.
        of_file = mine.filter(pc.equal(mine["lineage"], groups[0].lineage))
        ranges = zip(of_file["start"].to_pylist(), of_file["stop"].to_pylist(), strict=True)
        return (shard.start, shard.stop) in ranges
    replaced = pc.count_distinct(listed["series"]).as_py() >= KEPT_SERIES
    return not replaced and any(table.mark(group) for group in groups)


def _shard_of_largest_file(chain: Chain) -> ShardSpec | None:
    """Return the shard that tells two ways of cutting a corpus apart; None if there is none."""
    files = chain.corpus.snapshot.files
    largest = max(range(len(files)), key=lambda index: files[index].rows, default=None)
    shards = chain.shards(chain.corpus)
    return next((shard for shard in shards if shard.file_index == largest), None)


def score_marks(chain: Chain) -> Iterator[Mark]:
    """Yield one mark per shard of `corpus`, of the scorer that decides.

    Others' tell the same counts and rejected rows, unless what one scoring could use another,
    under other versions of packages, could not.

    Raises:
        DataError: A shard is not scored.
    """
    return ScoreTable(chain.root).marks(row_groups(chain, chain.settings.select.scorer))
