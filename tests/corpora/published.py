"""Small copies of public data sets: their columns, metadata, file names and layout, real pictures.

Facts of the schemas are in the modules of `raysae.corpora`; the pictures, questions and answers are
those of `builtin`. A few rows of each copy are bad, as real rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from raysae.corpora import Corpus, CorpusSettings, open_corpus
from raysae.corpora.columns import ColumnMap
from tests.corpora.published_chats import (
    instruction_of,
    several_images,
    write_llava_instruct,
    write_saved,
    write_sharegpt_dpo,
    write_trl_images,
    write_ultrafeedback,
)
from tests.corpora.published_images import (
    IMAGE_TO_TEXT_BAD,
    TRL_BAD,
    better_image,
    write_image_to_text,
    write_image_to_text_image,
    write_rlaif_v,
    write_rlaif_v_formatted,
    write_spa_vl,
    write_text_to_text,
    write_to_image,
    write_trl_rlaif_v,
)
from tests.corpora.published_rows import IMAGE, ROWS, Good, pair_of, without_images


@dataclass(frozen=True)
class Published:
    """A copy of a data set.

    Attributes:
        write: Writes it into a directory.
        settings: What reads it, without the path.
        bad: Ordinal → reason, of the rows that are rejected.
        good: Ordinal → what any other row holds.
        rows: How many there are.
        has_images: Whether any row has one.
    """

    write: Callable[[Path], None]
    settings: CorpusSettings
    bad: Mapping[int, str]
    good: Callable[[int], Good] = pair_of
    rows: int = ROWS
    has_images: bool = field(default=True)

    def written(self, directory: Path) -> CorpusSettings:
        """Write it, and return the settings that read it."""
        directory.mkdir(parents=True, exist_ok=True)
        self.write(directory)
        return replace(self.settings, path=str(directory))

    def opened(self, directory: Path) -> Corpus:
        """Write it, and open it."""
        return open_corpus(self.written(directory))


_CONVERSATIONS = ColumnMap(question="prompt", image="images", chosen="chosen", rejected="rejected")

FIXTURES: dict[str, Published] = {
    "align-anything": Published(
        lambda directory: write_image_to_text(directory, IMAGE, "text-image-to-text"),
        CorpusSettings("align-anything"),
        IMAGE_TO_TEXT_BAD,
    ),
    "align-anything-bytes": Published(
        lambda directory: write_image_to_text(directory, pa.binary(), "."),
        CorpusSettings("align-anything"),
        IMAGE_TO_TEXT_BAD,
    ),
    "text-to-image": Published(
        write_to_image,
        CorpusSettings("align-anything", configuration="text-to-image"),
        {3: "bad-preference", 7: "truncated-image", 11: "empty-question", 15: "no-image"},
        better_image,
    ),
    "text-image-to-text-image": Published(
        write_image_to_text_image,
        CorpusSettings("align-anything", configuration="text-image-to-text-image"),
        {3: "no-image", 7: "empty-answer", 11: "bad-preference"},
    ),
    "text-to-text": Published(
        write_text_to_text,
        CorpusSettings("align-anything", configuration="text-to-text"),
        {3: "bad-preference", 7: "empty-question", 11: "null-answer"},
        without_images,
        has_images=False,
    ),
    "rlaif-v": Published(
        write_rlaif_v,
        CorpusSettings("rlaif-v"),
        {3: "null-answer", 7: "equal-answers", 11: "image-by-path", 19: "truncated-image"},
    ),
    "rlaif-v-formatted": Published(
        write_rlaif_v_formatted,
        CorpusSettings("generic", files="data/train*", columns=_CONVERSATIONS),
        TRL_BAD,
    ),
    "trl-rlaif-v": Published(
        write_trl_rlaif_v, CorpusSettings("generic", columns=_CONVERSATIONS), TRL_BAD
    ),
    "spa-vl": Published(
        write_spa_vl,
        CorpusSettings("spa-vl"),
        {3: "empty-question", 7: "empty-answer", 11: "no-image", 15: "equal-answers"},
    ),
    "ultrafeedback": Published(
        write_ultrafeedback,
        CorpusSettings(
            "generic",
            files="data/train_prefs*",
            columns=ColumnMap(
                question="prompt", chosen="chosen", rejected="rejected", id="prompt_id"
            ),
        ),
        {3: "empty-answer", 7: "equal-answers", 11: "wrong-type", 15: "different-questions"},
        without_images,
        has_images=False,
    ),
    "llava-instruct": Published(
        write_llava_instruct,
        CorpusSettings(
            "generic",
            columns=ColumnMap(question="conversations", image="image", id="id", without_image=True),
        ),
        {
            3: "image-by-path",
            8: "wrong-type",
            13: "empty-answer",
            16: "image-placeholders",
            21: "broken-json",
        },
        instruction_of,
    ),
    "trl-images": Published(
        write_trl_images,
        CorpusSettings(
            "generic",
            columns=ColumnMap(
                image="images", chosen="chosen", rejected="rejected", without_image=True
            ),
        ),
        {3: "different-questions", 7: "null-answer", 11: "no-image"},
        several_images,
    ),
    "sharegpt-dpo": Published(
        write_sharegpt_dpo,
        CorpusSettings("generic", columns=replace(_CONVERSATIONS, question="conversations")),
        {
            3: "null-answer",
            7: "wrong-type",
            11: "empty-question",
            15: "image-placeholders",
        },
    ),
    "save-to-disk": Published(
        write_saved,
        CorpusSettings(
            "generic",
            columns=ColumnMap(
                question="meta.prompt", image="picture", chosen="good", rejected="bad"
            ),
        ),
        {3: "empty-question", 7: "null-answer", 11: "truncated-image"},
    ),
}
"""Name → copy. To read one: `FIXTURES[name].opened(directory)`."""
