"""What of a corpus is scored already, as the score table tells."""

from __future__ import annotations

from typing import Any

from raysae.scoring import SCORERS
from raysae.scoring.table import ScoreTable
from raysae.stages.chain import Chain


def scores_are_live(chain: Chain) -> bool:
    """Whether every shard of `corpus` has a live row group by every scorer, its file included."""
    table = ScoreTable(chain.root)
    live = {entry["path"] for entry in table.live()}
    groups = (chain.row_group(s, name) for s in chain.shards(chain.corpus) for name in SCORERS)
    return all(group.path in live and table.mark(group) is not None for group in groups)


def score_marks(chain: Chain) -> list[dict[str, Any]]:
    """Return one mark per shard of `corpus`: counts and rejected rows are alike for all scorers."""
    table = ScoreTable(chain.root)
    scorer = chain.settings.select.scorer
    marks = [table.mark(chain.row_group(shard, scorer)) for shard in chain.shards(chain.corpus)]
    return [mark for mark in marks if mark is not None]
