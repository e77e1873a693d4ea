"""Source data sets as samples: one module per kind of source, one table that names them.

`open_corpus(CorpusSettings(...))` fingerprints its files and gives a `Corpus`, whose rows
are read by file and range and come out as `Sample` or, with a reason, as `Rejection`; nothing is
skipped silently.
"""

from raysae.corpora.builtin import builtin_noisy_truth, known_corruption
from raysae.corpora.corpus import Corpus, CorpusSettings
from raysae.corpora.files import CorpusFile, CorpusFiles
from raysae.corpora.images import MAX_IMAGE_PIXELS, check_image
from raysae.corpora.snapshot import CorpusSnapshot
from raysae.corpora.sources import corpus_columns, open_corpus, open_subset

__all__ = [
    "MAX_IMAGE_PIXELS",
    "Corpus",
    "CorpusFile",
    "CorpusFiles",
    "CorpusSettings",
    "CorpusSnapshot",
    "builtin_noisy_truth",
    "check_image",
    "corpus_columns",
    "known_corruption",
    "open_corpus",
    "open_subset",
]
