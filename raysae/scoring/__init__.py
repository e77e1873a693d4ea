"""Feature weights, sample scores and selection (SAE-V, Algorithm 1).

`TopTokens` collects, shard by shard, each feature's highest text and image tokens; merged, it gives
`FeatureWeights`. `score_batch` turns sparse codes and weights into one table per scorer, `select`
turns a scorer's rows into the kept samples.
"""

from raysae.artifacts import SCORE_SCHEMA
from raysae.scoring.pool import TopToken
from raysae.scoring.scorers import (
    SAE_SCORERS,
    SCORERS,
    UNIMODAL_SCORERS,
    score_batch,
)
from raysae.scoring.selection import KEPT_SCHEMA, Selection, first_of_each_id, select
from raysae.scoring.settings import ScoreSettings, SelectionSettings, WeightSettings
from raysae.scoring.state import read_top_tokens, write_top_tokens
from raysae.scoring.tokens import draw_ordinals
from raysae.scoring.top_tokens import FeatureTokens, TopTokens
from raysae.scoring.weights import WEIGHTS_SCHEMA, FeatureWeights

__all__ = [
    "KEPT_SCHEMA",
    "SAE_SCORERS",
    "SCORERS",
    "SCORE_SCHEMA",
    "UNIMODAL_SCORERS",
    "WEIGHTS_SCHEMA",
    "FeatureTokens",
    "FeatureWeights",
    "ScoreSettings",
    "Selection",
    "SelectionSettings",
    "TopToken",
    "TopTokens",
    "WeightSettings",
    "draw_ordinals",
    "first_of_each_id",
    "read_top_tokens",
    "score_batch",
    "select",
    "write_top_tokens",
]
