"""Samples to prompt text with one image placeholder per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raysae.errors import RejectedSampleError
from raysae.models.settings import ModelSettings
from raysae.sample import ImagePart, Message, Sample, TextPart

Conversation = list[dict[str, Any]]
"""Messages as transformers' chat templates take them."""


def image_order(sample: Sample) -> list[int]:
    """Return the indices of the sample's images in the order in which the prompt shows them.

    Raises:
        RejectedSampleError: `no-image`: a message refers to an image that the sample lacks.
    """
    parts = (part for message in sample.messages for part in message.parts)
    order = [part.index for part in parts if isinstance(part, ImagePart)]
    for index in order:
        if not 0 <= index < len(sample.images):
            detail = f"message refers to image {index} of {len(sample.images)}"
            raise RejectedSampleError("no-image", detail)
    return order


def without_images(sample: Sample) -> Sample:
    """Return the sample without the image parts of its messages."""
    messages = tuple(
        Message(message.role, tuple(p for p in message.parts if isinstance(p, TextPart)))
        for message in sample.messages
    )
    return replace(sample, messages=messages)


def render_prompt(
    sample: Sample,
    settings: ModelSettings,
    image_token: str | None,
    control_tokens: Sequence[str],
    apply_chat_template: Callable[[Conversation, bool], str],
) -> str:
    """Render the prompt that the settings ask for.

    Args:
        sample: Its texts are data: whatever looks like a control token in them is defused.
        settings: `template` and `text` count.
        image_token: What the model's tokenizer takes for an image; None for a text-only model,
            which is shown none, and whose chat template takes plain strings.
        control_tokens: Every string that its tokenizer takes for a special token.
        apply_chat_template: (conversation, add_generation_prompt) → text.

    Raises:
        RejectedSampleError: `no-answer`, where the answer is asked for and the sample has none;
            `control-token-in-text`, where one cannot be defused; `chat-template`, where the
            template refuses the conversation.
    """
    answer = None
    if settings.text == "question+answer":
        if sample.chosen is None:
            raise RejectedSampleError("no-answer", "the answer is asked for, but there is none")
        answer = defuse(sample.chosen, control_tokens)
    messages = [_defuse_message(message, control_tokens) for message in sample.messages]
    if settings.template == "paper":
        return _paper_prompt(messages, answer, image_token or "")
    turns = messages if answer is None else [*messages, _said(answer)]
    content = _plain_content if image_token is None else _content
    conversation = [{"role": turn.role, "content": content(turn)} for turn in turns]
    try:
        return apply_chat_template(conversation, answer is None)
    except RejectedSampleError:
        raise
    except Exception as error:
        # Templates are programs of the model's authors: they raise what they like, on this sample.
        raise RejectedSampleError("chat-template", f"{type(error).__name__}: {error}") from error


def defuse(text: str, control_tokens: Sequence[str]) -> str:
    """Put a space after the first character of each control token, so that it is read as text.

    Raises:
        RejectedSampleError: `control-token-in-text`: a token (of a single character) survives that.
    """
    present = [token for token in control_tokens if token in text]
    for token in sorted(present, key=len, reverse=True):
        text = text.replace(token, f"{token[0]} {token[1:]}")
    if present and any(token in text for token in control_tokens):
        raise RejectedSampleError("control-token-in-text", f"{present} cannot be taken as text")
    return text


def _defuse_message(message: Message, control_tokens: Sequence[str]) -> Message:
    parts = (
        TextPart(defuse(part.text, control_tokens)) if isinstance(part, TextPart) else part
        for part in message.parts
    )
    return Message(message.role, tuple(parts))


def _paper_prompt(messages: Sequence[Message], answer: str | None, image_token: str) -> str:
    r"""SAE-V's prompt, `USER: \n<image> {question}\nASSISTANT: `, for any turns and images.

    A turn's images stand before its text, whatever their order in the sample.
    """
    text = ""
    for message in messages:
        images = [image_token for part in message.parts if isinstance(part, ImagePart)]
        body = " ".join([*images, message.text] if message.text else images)
        lead = {"user": "USER: \n", "assistant": "ASSISTANT: ", "system": ""}[message.role]
        text += f"{lead}{body}\n"
    return f"{text}ASSISTANT: {answer or ''}"


def _said(answer: str) -> Message:
    return Message("assistant", (TextPart(answer),))


def _plain_content(message: Message) -> str:
    return message.text


def _content(message: Message) -> list[dict[str, str]]:
    return [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.parts
    ]
