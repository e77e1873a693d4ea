from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysae.corpora.conversations import PLACEHOLDER, Turn
from raysae.corpora.placing import place_images
from raysae.errors import RejectedSampleError
from raysae.sample import ImagePart, Message, TextPart


def slow_place_images(turns: list[Turn], n_images: int) -> list[tuple[str, list[str | int]]]:
    """Say per message which texts and image numbers stand in it: obvious, and slow."""
    pieces = [(turn.role, re.split(f"({PLACEHOLDER})", turn.text)) for turn in turns]
    holes = [piece for _, some in pieces for piece in some if piece == PLACEHOLDER]
    if not holes:
        at = [role for role, _ in pieces].index("user") if n_images else 0
        texts = [[turn.text] if turn.text.strip() else [] for turn in turns]
        return [
            (role, [*range(n_images if number == at else 0), *texts[number]])
            for number, (role, _) in enumerate(pieces)
        ]
    if len(holes) != n_images:
        raise ValueError
    placed, next_image = [], 0
    for role, some in pieces:
        parts: list[str | int] = []
        for piece in some:
            if piece == PLACEHOLDER:
                parts.append(next_image)
                next_image += 1
            elif piece.strip() != "":
                parts.append(piece.strip())
        placed.append((role, parts))
    return placed


def flat(messages: tuple[Message, ...]) -> list[tuple[str, list[str | int]]]:
    return [
        (
            message.role,
            [part.text if isinstance(part, TextPart) else part.index for part in message.parts],
        )
        for message in messages
    ]


TURNS = st.lists(
    st.builds(
        Turn,
        st.sampled_from(["system", "user", "assistant"]),
        st.lists(st.sampled_from([PLACEHOLDER, "a", " b\n", "\n", "<imag", "<Image>"])).map(
            "".join
        ),
    ),
    min_size=1,
    max_size=4,
).filter(lambda turns: any(turn.role == "user" for turn in turns))


@given(TURNS, st.integers(0, 3))
def test_images_are_placed_as_by_hand(turns: list[Turn], n_images: int) -> None:
    try:
        expected = slow_place_images(turns, n_images)
    except ValueError:
        with pytest.raises(RejectedSampleError, match="image-placeholders"):
            place_images(turns, n_images)
    else:
        assert flat(place_images(turns, n_images)) == expected


def parts(text: str, n_images: int = 1) -> list[str | int]:
    ((_, found),) = flat(place_images([Turn("user", text)], n_images))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What?", [0, "What?"]),
        (" What?\n", [0, " What?\n"]),
        ("<image>\nWhat?", [0, "What?"]),
        ("\n<image>What?", [0, "What?"]),
        ("What?\n<image>", ["What?", 0]),
        ("Is <image> red?", ["Is", 0, "red?"]),
        ("<image>", [0]),
    ],
)
def test_one_image(text: str, expected: list[str | int]) -> None:
    assert parts(text) == expected


def test_two_images() -> None:
    assert parts("What differs?", 2) == [0, 1, "What differs?"]
    assert parts("<image><image>What differs?", 2) == [0, 1, "What differs?"]
    assert parts("Is <image> like <image>?", 2) == ["Is", 0, "like", 1, "?"]


@pytest.mark.parametrize(("text", "n_images"), [("<image>", 0), ("<image>", 2), ("<image>" * 3, 2)])
def test_other_numbers_are_rejected_with_both(text: str, n_images: int) -> None:
    counts = f"{text.count('<image>')} placeholders.*{n_images} image"
    with pytest.raises(RejectedSampleError, match=counts) as caught:
        parts(text, n_images)
    assert caught.value.reason == "image-placeholders"


def test_placeholders_count_over_the_whole_conversation() -> None:
    turns = [
        Turn("system", "Look."),
        Turn("user", "<image>\nWhat?"),
        Turn("assistant", "A cat."),
        Turn("user", "And <image>?"),
    ]
    assert place_images(turns, 2) == (
        Message("system", (TextPart("Look."),)),
        Message("user", (ImagePart(0), TextPart("What?"))),
        Message("assistant", (TextPart("A cat."),)),
        Message("user", (TextPart("And"), ImagePart(1), TextPart("?"))),
    )
