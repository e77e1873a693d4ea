from __future__ import annotations

import json
from typing import Any

import pytest

from raysae.corpora.conversations import PLACEHOLDER, Answer, Turn, answer_of, turns_of
from raysae.errors import RejectedSampleError

ASKED = Turn("user", "What?")
SAID = Turn("assistant", "A cat.")
CHATML = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."}]
SHAREGPT = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
HALF = json.loads(r'"\ud83d"')


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def asked(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def reason(value: Any) -> str:
    with pytest.raises(RejectedSampleError, match="col") as caught:
        turns_of(value, "col", "empty")
    assert len(caught.value.detail) < 200
    return caught.value.reason


def answer_reason(value: Any) -> str:
    with pytest.raises(RejectedSampleError, match="col") as caught:
        answer_of(value, "col")
    return caught.value.reason


@pytest.mark.parametrize(
    "value",
    [
        CHATML,
        SHAREGPT,
        [{"value": "What?", "from": "Human"}, {"value": "A cat.", "from": "GPT"}],
        [{"role": "User", "content": "What?"}, {"role": "model", "content": "A cat."}],
        [{**turn, "from": None, "value": None} for turn in CHATML],
        [{**turn, "weight": 1, "tool_calls": None} for turn in CHATML],
        [{**turn, "content": [text(turn["content"])]} for turn in CHATML],
        [json.dumps(turn) for turn in CHATML],
    ],
)
def test_conversations(value: Any) -> None:
    assert turns_of(value, "col", "empty") == (ASKED, SAID)


@pytest.mark.parametrize("value", [CHATML, SHAREGPT])
@pytest.mark.parametrize(
    "write", [json.dumps, str, lambda value: f"\n{json.dumps(value, indent=1)}"]
)
def test_conversations_that_were_written_as_text(value: Any, write: Any) -> None:
    assert turns_of(write(value), "col", "empty") == (ASKED, SAID)
    assert answer_of(write(value), "col") == Answer("A cat.", (ASKED,))


def test_apostrophes_and_newlines_of_python_literals() -> None:
    value = [{"from": "human", "value": 'What\'s\n"this"?'}, {"from": "gpt", "value": "It's 'x'."}]
    first, second = turns_of(str(value), "col", "empty")
    assert (first.text, second.text) == (value[0]["value"], value[1]["value"])


@pytest.mark.parametrize(
    "said",
    [
        "What?",
        '"What?"',
        "[]",
        "[1, 2]",
        '[{"name": "x"}]',
        '[{"role": "admin", "content": "x"}]',
        'Turn [{"role": "user", "content": "x"}] into XML.',
        '{"role": "user", "content": "x"}',
        "[{'role': 'user'}]",
        "null",
    ],
)
def test_other_texts_are_texts(said: str) -> None:
    assert turns_of(said, "col", "empty") == (Turn("user", said),)
    assert answer_of(said, "col") == Answer(said)


def test_what_numpy_prints_is_no_conversation() -> None:
    printed = "[{'from': 'human', 'value': 'What?'}\n {'from': 'gpt', 'value': 'A cat.'}]"
    assert reason(printed) == "wrong-type"
    assert answer_reason(printed) == "wrong-type"
    for deep in ("(" * 10_000, "[" * 100_000):
        assert reason(f"[{{'from': 'human', 'value': {deep}}}]") == "wrong-type"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "image"}, text("What?")], f"{PLACEHOLDER}\nWhat?"),
        (
            [{"type": "image", "text": None}, {"type": "text", "text": "What?"}],
            f"{PLACEHOLDER}\nWhat?",
        ),
        ([{"type": "image", "text": ""}, text("What?")], f"{PLACEHOLDER}\nWhat?"),
        ([text("What?"), {"type": "image", "index": 0}], f"What?\n{PLACEHOLDER}"),
        (['{"type": "image"}', '{"type": "text", "text": "What?"}'], f"{PLACEHOLDER}\nWhat?"),
        ([text("a"), {"type": "image"}, text("b")], f"a\n{PLACEHOLDER}\nb"),
        ([], ""),
        ("", ""),
        (f"{PLACEHOLDER}\nWhat?", f"{PLACEHOLDER}\nWhat?"),
    ],
)
def test_contents(content: Any, expected: str) -> None:
    assert turns_of(asked(content), "col", "empty") == (Turn("user", expected),)


def test_one_message_is_a_conversation() -> None:
    assert turns_of(SHAREGPT[0], "col", "empty") == (ASKED,)
    assert answer_of(SHAREGPT[1], "col") == Answer("A cat.")


@pytest.mark.parametrize("value", [None, "", "  ", []])
def test_nothing_is_asked(value: Any) -> None:
    assert reason(value) == "empty"


@pytest.mark.parametrize(
    "value",
    [
        1,
        True,
        b"What?",
        ["What?"],
        [None],
        [["What?"]],
        [{}],
        [{"role": "user"}],
        asked(None),
        asked(1),
        asked({"type": "text", "text": "x"}),
        asked([None]),
        asked(["What?"]),
        asked([{"type": "text", "text": None}]),
        asked([{"text": "What?"}]),
        asked([{"type": "video"}]),
        asked([{"type": "image_url", "image_url": {"url": "https://x"}}]),
        asked([{"type": ["text"], "text": "x"}]),
        [{"role": None, "content": "x"}],
        [{"role": "tool", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": {"name": "user"}, "content": "x"}],
        [{"role": "x" * 50_000, "content": "x"}],
        [{"role": b"user", "content": "x"}],
        [{"role": "assistant", "content": None, "tool_calls": [{}]}],
    ],
)
def test_what_is_no_conversation(value: Any) -> None:
    assert reason(value) == "wrong-type"


def test_half_characters() -> None:
    assert reason(HALF) == "undecodable-text"
    assert reason(asked(HALF)) == "undecodable-text"
    assert reason(asked([r'{"type": "text", "text": "\ud83d"}'])) == "undecodable-text"
    assert reason(r"[{'role': 'user', 'content': '\ud83d'}]") == "undecodable-text"


def test_answers() -> None:
    assert answer_of("A cat.", "col") == Answer("A cat.")
    assert answer_of("<image> is a tag.", "col") == Answer("<image> is a tag.")
    assert answer_of("x" * 50_000, "col") == Answer("x" * 50_000)
    assert answer_of(CHATML, "col") == Answer("A cat.", (ASKED,))
    assert answer_of([*CHATML, *SHAREGPT], "col") == Answer("A cat.", (ASKED, SAID, ASKED))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null-answer"),
        ([], "null-answer"),
        ("", "empty-answer"),
        (" \n", "empty-answer"),
        ([{"role": "assistant", "content": " "}], "empty-answer"),
        ([{"role": "assistant", "content": []}], "empty-answer"),
        (CHATML[:1], "wrong-type"),
        (CHATML[0], "wrong-type"),
        ([*CHATML, {"role": "system", "content": "x"}], "wrong-type"),
        ([*CHATML, None], "wrong-type"),
        (1, "wrong-type"),
        ([{"role": "assistant", "content": [{"type": "image"}]}], "image-placeholders"),
        ([{"from": "gpt", "value": "Here: <image>"}], "image-placeholders"),
    ],
)
def test_what_is_no_answer(value: Any, expected: str) -> None:
    assert answer_reason(value) == expected
