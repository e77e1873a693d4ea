"""SPA-VL (sqrti/SPA-VL): 93,258 pairs of answers to questions about images, about safety.

Facts of the published data set: `data/train-*` has the columns used here and `image_name`;
`validation/` (7,000 rows) has classes of harm instead, and `test/` (530 rows) no answers. A
question may hold `<image>`.
"""

from __future__ import annotations

from raysae.corpora.columns import ColumnMap

SPA_VL = ColumnMap(question="question", image="image", chosen="chosen", rejected="rejected")

SPA_VL_FILES = ("data/train*", "train*")
