"""RLAIF-V (openbmb/RLAIF-V-Dataset): 83,132 pairs of answers to questions about images.

Facts of the published data set: one split, `RLAIF-V-Dataset_000.parquet` to `_013.parquet`; beside
the columns used here `ds_name`, `origin_dataset`, `origin_split`, `idx` and `image_path`, all text.
`idx` is not taken for an id: nothing says that it is unique. The authors' training program writes
`RLAIF-V-Dataset_with_logp_*.parquet` of the same rows beside them.
"""

from __future__ import annotations

from raysae.corpora.columns import ColumnMap

RLAIF_V = ColumnMap(question="question", image="image", chosen="chosen", rejected="rejected")

RLAIF_V_FILES = ("RLAIF-V-Dataset_[0-9]*",)
