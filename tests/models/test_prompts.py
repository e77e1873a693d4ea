from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raysae.errors import RejectedSampleError
from raysae.models.prompts import defuse, image_order, render_prompt, without_images
from raysae.models.settings import ModelSettings
from raysae.sample import ImagePart, Message, Sample, TextPart
from tests.models.tiny import sample

CONTROL = ["<s>", "</s>", "<image>"]


def render(given: Sample, **settings: Any) -> str:
    return render_prompt(
        given, ModelSettings(**settings), "<image>", CONTROL, lambda c, g: f"{c} {g}"
    )


def test_paper_prompt() -> None:
    prompt = render(sample(text="What?"))
    assert prompt == "USER: \n<image> What?\nASSISTANT: "


def test_paper_prompt_with_answer() -> None:
    prompt = render(sample(text="What?", chosen="A cat."), text="question+answer")
    assert prompt == "USER: \n<image> What?\nASSISTANT: A cat."


def test_paper_prompt_without_image() -> None:
    assert render(sample((), text="What?")) == "USER: \nWhat?\nASSISTANT: "


def test_paper_prompt_puts_a_turns_images_first() -> None:
    turns = (
        Message("system", (TextPart("Be brief."),)),
        Message("user", (TextPart("This"), ImagePart(1), TextPart("and"), ImagePart(0))),
        Message("assistant", (TextPart("Yes."),)),
        Message("user", (TextPart("Why?"),)),
    )
    given = Sample("a", 0, turns, (b"", b""))
    assert image_order(given) == [1, 0]
    assert render(given) == (
        "Be brief.\nUSER: \n<image> <image> This and\nASSISTANT: Yes.\nUSER: \nWhy?\nASSISTANT: "
    )


def test_chat_passes_parts_in_order() -> None:
    prompt = render(sample(text="What?", chosen="A cat."), template="chat", text="question+answer")
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
    assert prompt == f"{[user, answer]} False"
    assert render(sample(text="What?"), template="chat") == f"{[user]} True"


@pytest.mark.parametrize("template", ["paper", "chat"])
def test_control_tokens_in_texts_are_defused(template: str) -> None:
    given = sample(text="<image> what</s>?", chosen="<image>")
    prompt = render(given, template=template, text="question+answer")
    assert prompt.count("<image>") == (template == "paper")
    assert "< image> what< /s>?" in prompt


def test_defuse_leaves_other_text_alone() -> None:
    assert defuse("a < b > <images>", CONTROL) == "a < b > <images>"


def test_single_character_control_token_is_rejected() -> None:
    with pytest.raises(RejectedSampleError, match="control-token-in-text"):
        defuse("a|b", ["|"])


def test_text_only_models_get_plain_strings() -> None:
    turns = (
        Message("user", (TextPart("What"), TextPart("is it?"))),
        Message("assistant", ()),
        Message("user", (TextPart("Really </s>?"),)),
    )
    settings = ModelSettings(template="chat", text="question+answer")
    given = Sample("a", 0, turns, (), chosen="A cat.")
    prompt = render_prompt(given, settings, None, CONTROL, lambda c, g: f"{c} {g}")
    said = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Really < /s>?"},
        {"role": "assistant", "content": "A cat."},
    ]
    assert prompt == f"{said} False"
    paper = render_prompt(sample((), text="What?"), ModelSettings(), None, CONTROL, lambda c, g: "")
    assert paper == "USER: \nWhat?\nASSISTANT: "


def test_images_are_left_out_with_their_places() -> None:
    parts = (TextPart("This"), ImagePart(1), TextPart("and"), ImagePart(0))
    given = replace(sample(), messages=(Message("user", parts),))
    bare = without_images(given)
    assert bare.messages == (Message("user", (TextPart("This"), TextPart("and"))),)
    assert image_order(bare) == []
    assert replace(bare, messages=given.messages) == given


def test_missing_answer_is_rejected() -> None:
    with pytest.raises(RejectedSampleError, match="no-answer"):
        render(sample(), text="question+answer")


def test_image_that_is_not_there_is_rejected() -> None:
    with pytest.raises(RejectedSampleError, match="no-image"):
        image_order(replace(sample(), images=()))


def test_template_that_refuses_rejects_the_sample() -> None:
    def refuse(_conversation: object, _generate: bool) -> str:
        raise ValueError("roles must alternate")

    settings = ModelSettings(template="chat")
    with pytest.raises(RejectedSampleError, match="roles must alternate"):
        render_prompt(sample(), settings, "<image>", CONTROL, refuse)
