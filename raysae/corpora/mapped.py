"""Rows to samples by a column map: what every source of questions and answers has in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from reprlib import repr as short
from typing import Any

import pyarrow as pa

from raysae.corpora.columns import ColumnMap, check_columns, top_level
from raysae.corpora.conform import BROKEN
from raysae.corpora.conversations import PLACEHOLDER, Answer, Turn, answer_of, turns_of
from raysae.corpora.corpus import Corpus
from raysae.corpora.image_cells import images_of
from raysae.corpora.images import check_image
from raysae.corpora.learned import FileSchema
from raysae.corpora.placing import place_images
from raysae.corpora.snapshot import CorpusSnapshot
from raysae.corpora.values import at_path, decoded, id_of, row_values
from raysae.errors import RejectedSampleError
from raysae.sample import Rejection, Sample


class MappedCorpus(Corpus):
    """Files whose columns a `ColumnMap` names.

    A sample is the conversation up to the answer, the images in their places (see `placing`), with
    the better answer in `chosen` and the other in `rejected`, where there are answers.

    Reasons to reject a row, in the order in which they are looked for: `broken-json`,
    `undecodable-text` and `wrong-type` (wherever they are met), `empty-question`, `null-answer`,
    `empty-answer`, `different-questions`, `bad-preference`, `equal-answers`, `image-by-path`,
    `no-image`, `image-placeholders`, `image-bomb`, `truncated-image`, `undecodable-image`.

    Args:
        snapshot: The files.
        schemas: Their distinct schemas.
        map_: Which columns hold what.
        left_out: As in `Corpus`.
        setting: The field of a job's settings that names the corpus, for messages.
    """

    def __init__(
        self,
        snapshot: CorpusSnapshot,
        schemas: Sequence[FileSchema],
        map_: ColumnMap,
        left_out: int = 0,
        setting: str = "corpus",
    ) -> None:
        self.map = map_
        if snapshot.name == "generic":
            self._advice = f"correct --{setting}.columns"
        else:
            self._advice = (
                f"name the right corpus, or map its columns: --{setting} generic "
                f"--{setting}.columns"
            )
        super().__init__(snapshot, schemas, left_out)
        names = set(self._fields.names)
        used = dict.fromkeys(top_level(path, names) for path in map_.names)
        self.columns = (*used, BROKEN) if BROKEN in names else tuple(used)

    def check_columns(self, schema: pa.Schema, file: str) -> None:
        """Raise DataError if columns are missing or of unusable types."""
        check_columns(schema, self.map, file, self._advice)

    @property
    def has_images(self) -> bool:
        """Whether the map names a column of images."""
        return bool(self.map.image or self.map.image_1)

    @property
    def has_pairs(self) -> bool:
        """Whether the map names two answers."""
        return len(self.map.answers) == 2

    def reading(self) -> dict[str, Any]:
        """Return the column map."""
        return {"columns": asdict(self.map)}

    def samples(self, table: pa.Table, first_ordinal: int) -> Iterator[Sample | Rejection]:
        """Turn rows into samples: for each row, in order, either a `Sample` or a `Rejection`."""
        columns = {name: table.column(name) for name in self.columns}
        for row in range(table.num_rows):
            ordinal = first_ordinal + row
            sample_id = self.snapshot.sample_id(ordinal)
            try:
                values = decoded(row_values(columns, row), table.schema)
                sample_id = self._own_id(values) or sample_id
                yield self._sample(sample_id, ordinal, values)
            except RejectedSampleError as error:
                yield Rejection(sample_id, ordinal, error.reason, error.detail)

    def _own_id(self, values: Mapping[str, Any]) -> str | None:
        name = self.map.id
        return id_of(at_path(values, name), name) if name else None

    def _sample(self, sample_id: str, ordinal: int, values: Mapping[str, Any]) -> Sample:
        """Build one sample; cheap checks first, the decoding of the images last."""
        if values.get(BROKEN) is not None:
            raise RejectedSampleError("broken-json", values[BROKEN])
        turns, chosen, rejected = self._texts(values)
        images = self._images(values)
        messages = place_images(turns, len(images))
        for image in images:
            check_image(image)
        return Sample(sample_id, ordinal, messages, images, chosen, rejected)

    def _images(self, values: Mapping[str, Any]) -> tuple[bytes, ...]:
        """Return a row's encoded images: those that were given, or the better one of two."""
        name = self.map.image
        if self.map.image_1:
            name = self.map.image_1 if self._better(values) == 1 else self.map.image_2
        images = images_of(at_path(values, name), name) if name else ()
        if name and not images and not self.map.without_image:
            raise RejectedSampleError("no-image", f"{name} is null or empty")
        return images

    def _texts(self, values: Mapping[str, Any]) -> tuple[Sequence[Turn], str | None, str | None]:
        """Return the conversation before the answer, the better answer and the worse one."""
        turns, answers = self._turns(values)
        if not any(turn.role == "user" and _said(turn) for turn in turns):
            asked = self.map.question or self.map.chosen
            raise RejectedSampleError("empty-question", f"{asked} has no text of the user's")
        for answer in answers:
            if not _is_repeated(turns, answer.before):
                raise RejectedSampleError(
                    "different-questions", "an answer's conversation is not that of the question"
                )
        texts = [answer.text for answer in answers]
        if self.map.response_1 and self._better(values) == 2:
            texts.reverse()
        if len(texts) == 2 and texts[0].strip() == texts[1].strip():
            raise RejectedSampleError("equal-answers", "both answers are the same")
        chosen, rejected = (*texts, None, None)[:2]
        return turns, chosen, rejected

    def _turns(self, values: Mapping[str, Any]) -> tuple[Sequence[Turn], list[Answer]]:
        """Return the conversation before the answer, and the answers in the map's order."""
        asked = self.map.question
        turns = turns_of(at_path(values, asked), asked, "empty-question") if asked else ()
        names = self.map.answers
        answers = [answer_of(at_path(values, name), name) for name in names]
        if not asked:
            return answers[0].before, answers
        if turns[-1].role == "assistant" and answers:
            detail = f"{asked} ends with an answer, though there is {names[0]}"
            raise RejectedSampleError("wrong-type", detail)
        if turns[-1].role == "assistant":
            return turns[:-1], [answer_of(at_path(values, asked), asked)]
        return turns, answers

    def _better(self, values: Mapping[str, Any]) -> int:
        """Return 1 or 2: the better answer or image."""
        name = self.map.preference
        better = at_path(values, name)
        known = better.strip() if isinstance(better, str) else better
        if isinstance(known, bool) or known not in (1, 2, "1", "2"):
            detail = f"{name} is {short(better)}, not 1 or 2"
            raise RejectedSampleError("bad-preference", detail)
        return int(known)


def _said(turn: Turn) -> list[str]:
    """Return a turn's words."""
    return turn.text.replace(PLACEHOLDER, " ").split()


def _is_repeated(turns: Sequence[Turn], before: Sequence[Turn]) -> bool:
    """Whether what stands before an answer is the question, or its end; system messages apart."""
    asked, repeated = ([(turn.role, _said(turn)) for turn in some] for some in (turns, before))
    while len(repeated) > len(asked) and repeated[0][0] == "system":
        del repeated[0]
    return not repeated or asked[-len(repeated) :] == repeated
