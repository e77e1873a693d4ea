"""Samples → TRL's conversational preference rows with images, in an Arrow file that all ranks map.

Every row is checked here, once, so that no row can stop the training: images are decoded, tokens
are counted, and what cannot be used is rejected with a reason. Every row holds at least one image,
since ranks that see different modalities in one step hang under ZeRO.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raysae.errors import DataError, RejectedSampleError
from raysae.sample import ImagePart, Message, Rejection, Sample, count_reasons

if TYPE_CHECKING:
    import datasets

ROWS_PER_BATCH = 64
"""Rows in one Arrow record batch: bounds what the writer holds, encoded images included."""

_TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
_PARTS_TURN = pa.struct([("role", pa.string()), ("content", pa.list_(_PART))])

PREFERENCE_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("images", pa.list_(pa.binary())),
        ("prompt", pa.list_(_PARTS_TURN)),
        ("chosen", pa.list_(_TURN)),
        ("rejected", pa.list_(_TURN)),
    ]
)
"""The columns that TRL's vision collator reads (images still encoded), and the sample's id."""

PreferenceRow = dict[str, Any]
"""One row of `PREFERENCE_SCHEMA`."""


@dataclass(frozen=True)
class RowRules:
    """What a model can take.

    Attributes:
        control_tokens: Texts that its tokenizer takes for special tokens, the image token included.
        count_tokens: Counts a row's tokens, given the (height, width) of its images.
        max_tokens: Longer rows are rejected: cutting them would cut image tokens.
    """

    control_tokens: tuple[str, ...]
    count_tokens: Callable[[PreferenceRow, Sequence[tuple[int, int]]], int]
    max_tokens: int


@dataclass(frozen=True)
class PreferenceCounts:
    """What became of the samples.

    Attributes:
        rows: Rows written.
        rejected: Rejected rows by reason.
        rejections: Every rejected row, in order.
    """

    rows: int
    rejected: dict[str, int]
    rejections: tuple[Rejection, ...]


def preference_row(sample: Sample, control_tokens: Sequence[str]) -> PreferenceRow:
    """Turn a sample into one of TRL's conversational preference rows.

    Args:
        sample: A sample with a better and a worse answer and at least one image.
        control_tokens: See `RowRules`; they are defused in every text, so that `<image>` in a
            question is read as text and `<s>` in an answer is no second BOS.

    Returns:
        `prompt` is the conversation up to the answer, with images where the sample has them;
        `chosen` and `rejected` hold one assistant turn each.

    Raises:
        RejectedSampleError: `no-preference`, `empty-question`, `empty-answer`, `equal-answers`,
            `no-image`, or `control-token-in-text`.
    """
    from raysae.models.prompts import defuse, image_order

    if sample.chosen is None or sample.rejected is None:
        raise RejectedSampleError("no-preference", "the row has no better and worse answer.")
    if not sample.chosen.strip() or not sample.rejected.strip():
        raise RejectedSampleError("empty-answer", "one of the two answers has no text.")
    if sample.chosen == sample.rejected:
        raise RejectedSampleError("equal-answers", "the two answers are equal.")
    if not any(message.text.strip() for message in sample.messages):
        raise RejectedSampleError("empty-question", "the conversation has no text.")
    shown = image_order(sample)
    if not shown:
        raise RejectedSampleError("no-image", "the conversation shows no image.")
    chosen, rejected = (defuse(text, control_tokens) for text in (sample.chosen, sample.rejected))
    return {
        "sample_id": sample.sample_id,
        "images": [sample.images[index] for index in shown],
        "prompt": [_turn(message, control_tokens) for message in sample.messages],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def _turn(message: Message, control_tokens: Sequence[str]) -> dict[str, Any]:
    """Describe a message by parts; TRL fills the images in, in order."""
    from raysae.models.prompts import defuse

    parts = [
        {"type": "image", "text": ""}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": defuse(part.text, control_tokens)}
        for part in message.parts
    ]
    return {"role": message.role, "content": parts}


def _check_length(row: PreferenceRow, rules: RowRules) -> None:
    """Decode a row's images and count its tokens.

    Raises:
        RejectedSampleError: `too-long`, or what is wrong with an image.
    """
    tokens = rules.count_tokens(row, image_sizes(row))
    if tokens > rules.max_tokens:
        raise RejectedSampleError(
            "too-long", f"{tokens} tokens, more than finetune.max_tokens = {rules.max_tokens}."
        )


def image_sizes(row: PreferenceRow) -> list[tuple[int, int]]:
    """Decode a row's images fully, as training will, and return their (height, width) in pixels.

    Raises:
        RejectedSampleError: `image-bomb`, `truncated-image` or `undecodable-image`.
    """
    from raysae.models import decode_image

    decoded = [decode_image(encoded) for encoded in row["images"]]
    return [(image.height, image.width) for image in decoded]


def write_preferences(
    samples: Iterable[Sample | Rejection], path: Path, rules: RowRules
) -> PreferenceCounts:
    """Check samples and write the usable ones as an Arrow IPC stream.

    Args:
        samples: One entry per row of the corpus; a `Rejection` is only counted.
        path: The file; what an exception leaves there is not complete.
        rules: What the model can take.

    Raises:
        DataError: Fewer than two rows are usable.
    """
    rejections: list[Rejection] = []
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, PREFERENCE_SCHEMA) as stream:
        for batch in _batches(_usable(samples, rejections, rules)):
            stream.write_batch(pa.RecordBatch.from_pylist(batch, schema=PREFERENCE_SCHEMA))
            rows += len(batch)
    counts = count_reasons(rejection.reason for rejection in rejections)
    if rows < 2:
        raise DataError(
            f"finetune: {rows} of {rows + len(rejections)} rows can be trained on "
            f"(rejected: {counts or 'none'}), but at least 2 are needed; mend the subset."
        )
    return PreferenceCounts(rows, counts, tuple(rejections))


def _usable(
    samples: Iterable[Sample | Rejection], rejections: list[Rejection], rules: RowRules
) -> Iterator[PreferenceRow]:
    """Yield the rows that can be trained on and append the others to `rejections`."""
    for sample in samples:
        if isinstance(sample, Rejection):
            rejections.append(sample)
            continue
        try:
            row = preference_row(sample, rules.control_tokens)
            _check_length(row, rules)
        except RejectedSampleError as error:
            rejections.append(
                Rejection(sample.sample_id, sample.ordinal, error.reason, error.detail)
            )
            continue
        yield row


def longest_row(samples: Iterable[Sample | Rejection], rules: RowRules) -> int:
    """Return the tokens of the longest row that can be trained on; 0 if none can."""
    rows = _usable(samples, [], rules)
    return max((rules.count_tokens(row, image_sizes(row)) for row in rows), default=0)


def _batches(rows: Iterable[PreferenceRow]) -> Iterator[list[PreferenceRow]]:
    """Group rows for the writer."""
    batch: list[PreferenceRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_PER_BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def open_preferences(path: Path) -> datasets.Dataset:
    """Map a file of `write_preferences` as a dataset whose images are decoded on access."""
    import datasets

    rows = datasets.Dataset.from_file(str(path)).remove_columns("sample_id")
    return rows.with_transform(_decode_images)


def _decode_images(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Decode the encoded images of a batch of rows."""
    from raysae.models import decode_image

    if "images" in batch:
        batch["images"] = [[decode_image(data) for data in row] for row in batch["images"]]
    return batch
