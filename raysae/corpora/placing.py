"""Where a conversation's images stand: at the placeholders in its texts, else at its head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from raysae.corpora.conversations import PLACEHOLDER, Turn
from raysae.errors import RejectedSampleError
from raysae.sample import ImagePart, Message, TextPart


def place_images(turns: Sequence[Turn], n_images: int) -> tuple[Message, ...]:
    """Turn a conversation into messages with its images in their places.

    Texts without any placeholder have the images before the first message of the user's, in order
    (as in SAE-V's template). Otherwise every image needs a placeholder of its own: which of them
    are meant cannot be told if there are more or fewer. A blank text is no part of its message.

    Args:
        turns: The conversation.
        n_images: Its images.

    Raises:
        RejectedSampleError: `image-placeholders`: their number is neither 0 nor `n_images`.
    """
    found = sum(turn.text.count(PLACEHOLDER) for turn in turns)
    if found not in (0, n_images):
        detail = f"the text has {found} placeholders {PLACEHOLDER} for {n_images} image(s)"
        raise RejectedSampleError("image-placeholders", detail)
    if found:
        numbers = count()
        return tuple(Message(turn.role, tuple(_split(turn.text, numbers))) for turn in turns)
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), 0)
    images = tuple(ImagePart(index) for index in range(n_images))
    return tuple(
        Message(turn.role, (*(images if number == first else ()), *_text(turn.text)))
        for number, turn in enumerate(turns)
    )


def _text(text: str) -> tuple[TextPart, ...]:
    return (TextPart(text),) if text.strip() else ()


def _split(text: str, numbers: Iterator[int]) -> Iterator[TextPart | ImagePart]:
    """Cut a text at its placeholders; the space around them belongs to the notation."""
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        if number:
            yield ImagePart(next(numbers))
        yield from _text(piece.strip())
