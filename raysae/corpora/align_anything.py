"""Align-Anything's text-image-to-text preferences: one image, one question, two answers, a verdict.

Columns (facts of the published data set): `question`, `image` (Hugging Face's struct of bytes and
path, or plain bytes), `response_1`, `response_2`, `overall_response` (1 or 2: the better answer);
any others are kept by `read` and ignored here. It has no id column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.types as pt

from raysae.corpora.corpus import Corpus
from raysae.corpora.images import check_image
from raysae.errors import DataError, RejectedSampleError
from raysae.sample import ImagePart, Message, Rejection, Sample, TextPart


class AlignAnythingCorpus(Corpus):
    """Parquet files with Align-Anything's text-image-to-text columns.

    A sample is one user message, the image before the question (as in the paper's template), with
    the better answer in `chosen` and the other in `rejected`.

    Reasons to reject a row, in the order in which they are looked for: `undecodable-text`,
    `empty-question`, `null-answer`, `empty-answer`, `bad-preference`, `equal-answers`, `no-image`,
    `image-bomb`, `truncated-image`, `undecodable-image`.
    """

    columns: ClassVar[tuple[str, ...]] = (
        "question",
        "image",
        "response_1",
        "response_2",
        "overall_response",
    )

    @classmethod
    def check_columns(cls, schema: pa.Schema, file: str) -> None:
        """Raise DataError if a column is missing or of an unusable type."""
        for name in cls.columns:
            if name not in schema.names:
                raise DataError(
                    f"{file} has no column {name!r} (it has {', '.join(schema.names)}); the corpus "
                    "needs Align-Anything's text-image-to-text columns."
                )
            if not _usable(name, schema.field(name).type):
                raise DataError(
                    f"{file}: the column {name!r} has the type {schema.field(name).type}; the "
                    "corpus needs Align-Anything's text-image-to-text columns."
                )

    def samples(self, table: pa.Table, first_ordinal: int) -> Iterator[Sample | Rejection]:
        """Turn rows into samples: for each row, in order, either a `Sample` or a `Rejection`."""
        columns = {name: table.column(name) for name in self.columns}
        for row in range(table.num_rows):
            ordinal = first_ordinal + row
            sample_id = self.snapshot.sample_id(ordinal)
            try:
                values = _row_values(columns, row)
                yield _sample(sample_id, ordinal, values)
            except RejectedSampleError as error:
                yield Rejection(sample_id, ordinal, error.reason, error.detail)


def _usable(name: str, type_: pa.DataType) -> bool:
    if name == "image" and pt.is_struct(type_):
        index = type_.get_field_index("bytes")
        return index >= 0 and _usable(name, type_.field(index).type)
    if name == "image":
        return any((pt.is_binary(type_), pt.is_large_binary(type_), pt.is_binary_view(type_)))
    if name == "overall_response":  # pandas writes integers with nulls as floats
        return any((pt.is_integer(type_), pt.is_floating(type_)))
    return any((pt.is_string(type_), pt.is_large_string(type_), pt.is_string_view(type_)))


def _row_values(columns: dict[str, pa.ChunkedArray], row: int) -> dict[str, Any]:
    try:
        return {name: column[row].as_py() for name, column in columns.items()}
    except UnicodeDecodeError as error:
        raise RejectedSampleError("undecodable-text", f"a text is no UTF-8: {error}") from error


def _sample(sample_id: str, ordinal: int, values: dict[str, Any]) -> Sample:
    """Build one sample; cheap checks first, the decoding of the image last.

    Raises:
        RejectedSampleError: The row cannot be used.
    """
    question = values["question"]
    if question is None or not question.strip():
        raise RejectedSampleError("empty-question", "the question is null or blank")
    chosen, rejected = _answers(values)
    image = values["image"]
    data = image["bytes"] if isinstance(image, dict) else image
    if data is None:
        raise RejectedSampleError("no-image", "the row has no image bytes (paths are not followed)")
    check_image(data)
    message = Message("user", (ImagePart(0), TextPart(question)))
    return Sample(sample_id, ordinal, (message,), (data,), chosen, rejected)


def _answers(values: dict[str, Any]) -> tuple[str, str]:
    """Return (better answer, worse answer).

    Raises:
        RejectedSampleError: There are not two different answers with a verdict.
    """
    answers = values["response_1"], values["response_2"]
    for number, answer in enumerate(answers, start=1):
        if answer is None:
            raise RejectedSampleError("null-answer", f"response_{number} is null")
        if not answer.strip():
            raise RejectedSampleError("empty-answer", f"response_{number} is blank")
    better = values["overall_response"]
    if better not in (1, 2):
        raise RejectedSampleError("bad-preference", f"overall_response is {better}, not 1 or 2")
    if answers[0].strip() == answers[1].strip():
        raise RejectedSampleError("equal-answers", "both answers are the same")
    return (answers[0], answers[1]) if better == 1 else (answers[1], answers[0])
